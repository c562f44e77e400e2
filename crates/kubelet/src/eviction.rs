//! What must be left of the node's resources.

use std::str::FromStr;

use meta::Quantity;

/// What must be left of the node's resources; below it the node says that it is under pressure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvictionHard {
    /// Bytes of memory.
    pub memory_available_bytes: u64,
    /// Part of the node's file system, 0 to 1.
    pub nodefs_available: f64,
    /// Part of the node's inodes, 0 to 1.
    pub nodefs_inodes_free: f64,
}

impl Default for EvictionHard {
    /// Upstream's defaults on Linux.
    fn default() -> Self {
        Self { memory_available_bytes: 100 << 20, nodefs_available: 0.10, nodefs_inodes_free: 0.05 }
    }
}

impl FromStr for EvictionHard {
    type Err = String;

    /// Reads upstream's `--eviction-hard`; what is not named has no threshold.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut found =
            Self { memory_available_bytes: 0, nodefs_available: 0.0, nodefs_inodes_free: 0.0 };
        for threshold in text.split(',').filter(|part| !part.is_empty()) {
            let (signal, value) = threshold
                .split_once('<')
                .ok_or_else(|| format!("invalid eviction threshold: {threshold}"))?;
            match signal {
                "memory.available" => found.memory_available_bytes = bytes(value)?,
                "nodefs.available" => found.nodefs_available = part(signal, value)?,
                "nodefs.inodesFree" => found.nodefs_inodes_free = part(signal, value)?,
                other => return Err(format!("the signal {other} is not looked at")),
            }
        }
        Ok(found)
    }
}

fn bytes(value: &str) -> Result<u64, String> {
    let quantity = Quantity::from_str(value).map_err(|error| format!("{value}: {error}"))?;
    u64::try_from(quantity.value()).map_err(|_| format!("{value}: must not be negative"))
}

fn part(signal: &str, value: &str) -> Result<f64, String> {
    let number = value.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    let number = number.ok_or_else(|| format!("{signal}: {value} is not a percentage"))?;
    if (0.0..=100.0).contains(&number) {
        return Ok(number / 100.0);
    }
    Err(format!("{signal}: {value} is not between 0% and 100%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_and_those_that_are_not_named_are_none() {
        let text = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%";
        assert_eq!(text.parse(), Ok(EvictionHard::default()));
        let one: EvictionHard = "nodefs.available<2.5%".parse().unwrap();
        assert_eq!((one.nodefs_available, one.memory_available_bytes), (0.025, 0));
        for (wrong, why) in [
            ("imagefs.available<15%", "the signal imagefs.available is not looked at"),
            ("nodefs.available<1Gi", "nodefs.available: 1Gi is not a percentage"),
            ("nodefs.available<101%", "nodefs.available: 101% is not between 0% and 100%"),
            ("memory.available", "invalid eviction threshold: memory.available"),
        ] {
            assert_eq!(wrong.parse::<EvictionHard>(), Err(why.to_owned()));
        }
    }
}
