//! What must hold for every schema and every object.

#[cfg(test)]
mod properties;
