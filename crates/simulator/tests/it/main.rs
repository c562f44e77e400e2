//! Seeds: some of each run, those that once failed, and that a seed is always the same run.

#[cfg(test)]
mod seeds;
