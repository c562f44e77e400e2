//! Short runs of every target, decided by their seed.

#[cfg(test)]
mod smoke;

#[global_allocator]
static MEMORY: fuzz::Counting = fuzz::Counting;
