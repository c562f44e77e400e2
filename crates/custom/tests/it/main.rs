//! What must hold for every schema and every object.

#[cfg(test)]
#[cfg(test)]
mod properties;
