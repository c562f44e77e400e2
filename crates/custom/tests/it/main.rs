//! What must hold for every schema and every object.

mod properties;
