//! Removing images that nobody uses: upstream `realImageGCManager`.
//!
//! An image goes when it was unused for too long, or when the disk is too full and it was known for
//! some time; those unused for longest go first. What containers use, running or ended, stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::{EventType, Regarding};
use cri::{ContainerFilter, CriError, Image, ImageSpec};
use jiff::Timestamp;

use super::ImageGcPolicy;
use crate::kubelet::Kubelet;

/// How often the disk is looked at: upstream `ImageGCPeriod`.
const EVERY: Duration = Duration::from_secs(300);

/// What is remembered of the images of the node, by identifier.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    records: BTreeMap<String, Record>,
    /// Whether the images were looked at before: those of then are of any age.
    initialized: bool,
    failed_before: bool,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    first_detected: Timestamp,
    /// The last time that a container used it; long ago when none did.
    last_used: Timestamp,
    size: u64,
    pinned: bool,
}

/// The disk with the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) capacity: u64,
    pub(crate) available: u64,
}

/// Why the disk is still too full.
#[derive(Debug, thiserror::Error)]
enum CollectError {
    #[error(transparent)]
    Runtime(#[from] CriError),
    #[error("failed to get image stats: no image filesystem")]
    NoDisk,
    #[error("failed to get image stats")]
    Disk(#[source] nix::Error),
    #[error("invalid capacity 0 on image filesystem")]
    Capacity,
    #[error(
        "wanted to free {wanted} bytes, but freed {freed} bytes space with errors in image deletion: {errors}"
    )]
    Deletion { wanted: u64, freed: u64, errors: String },
    #[error(
        "Insufficient free disk space on the node's image filesystem ({percent}% of {capacity} used). \
         Failed to free sufficient space by deleting unused images (freed {freed} bytes). \
         Investigate disk usage, as it could be used by active images, logs, volumes, or other data."
    )]
    Insufficient { percent: u64, capacity: String, freed: u64 },
}

impl Collector {
    /// Takes note of what there is and what is used.
    fn detect(&mut self, images: &[Image], used: &BTreeSet<String>, now: Timestamp) {
        let detected = if self.initialized { now } else { Timestamp::UNIX_EPOCH };
        self.initialized = true;
        for image in images {
            let record = self.records.entry(image.id.clone()).or_insert(Record {
                first_detected: detected,
                last_used: Timestamp::UNIX_EPOCH,
                size: 0,
                pinned: false,
            });
            record.size = image.size;
            record.pinned = image.pinned;
            if used.contains(&image.id) {
                record.last_used = now;
            }
        }
        let present: BTreeSet<&str> = images.iter().map(|image| &*image.id).collect();
        self.records.retain(|id, _| present.contains(&**id));
    }

    /// Images that may go, the first to go first.
    fn in_order(&self, now: Timestamp) -> Vec<(String, Record)> {
        let unused = self.records.iter().filter(|(_, record)| {
            // A record of this very look is in use.
            !record.pinned && record.last_used < now
        });
        let mut order: Vec<(String, Record)> = unused.map(|(id, r)| (id.clone(), *r)).collect();
        order.sort_by(|(a, x), (b, y)| {
            (x.last_used, x.first_detected, a).cmp(&(y.last_used, y.first_detected, b))
        });
        order
    }

    /// Those that were unused for too long; only what was looked at for so long can be told.
    fn too_old(&self, policy: &ImageGcPolicy, now: Timestamp, began: Timestamp) -> Vec<String> {
        if policy.max_age.is_zero() || age(began, now) <= policy.max_age {
            return Vec::new();
        }
        let order = self.in_order(now).into_iter();
        order.filter(|(_, r)| age(r.last_used, now) > policy.max_age).map(|(id, _)| id).collect()
    }

    /// Those to remove for space, until enough is free.
    fn too_many(&self, policy: &ImageGcPolicy, now: Timestamp) -> Vec<(String, u64)> {
        let order = self.in_order(now).into_iter();
        let old = order.filter(|(_, record)| age(record.first_detected, now) >= policy.min_age);
        old.map(|(id, record)| (id, record.size)).collect()
    }
}

/// How much has to go so that the disk is at the lower threshold, when it is over the higher one.
fn to_free(policy: &ImageGcPolicy, disk: Disk) -> Option<(u64, u64)> {
    let available = disk.available.min(disk.capacity);
    let hundredth = |part: u64| {
        u64::try_from(u128::from(disk.capacity) * u128::from(part) / 100).unwrap_or(u64::MAX)
    };
    let free = u128::from(available) * 100 / u128::from(disk.capacity.max(1));
    let used = 100 - u64::try_from(free).unwrap_or(100);
    let low = u64::from(100 - policy.low_threshold_percent.min(100));
    (used >= u64::from(policy.high_threshold_percent))
        .then(|| (used, hundredth(low).saturating_sub(available)))
}

fn age(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// Looks from time to time, and when a pull found the disk full, until the kubelet ends.
pub(crate) async fn keep(kubelet: Arc<Kubelet>) {
    let shutdown = kubelet.shutdown.clone();
    let began = kubelet.deps.clock.now();
    let mut collector = Collector::default();
    loop {
        match collect(&kubelet, &mut collector, began).await {
            Ok(()) => collector.failed_before = false,
            Err(error) => failed(&kubelet, &mut collector, &error),
        }
        tokio::select! {
            () = kubelet.deps.clock.sleep(EVERY) => {}
            () = kubelet.disk_full.notified() => {}
            () = shutdown.begun() => return,
        }
    }
}

fn failed(kubelet: &Kubelet, collector: &mut Collector, error: &CollectError) {
    let reason = match error {
        CollectError::Insufficient { .. } => Some("FreeDiskSpaceFailed"),
        CollectError::Capacity => Some("InvalidDiskCapacity"),
        _ => None,
    };
    if let Some(reason) = reason {
        node_event(kubelet, reason, &error.to_string());
    }
    // Once may be because the machine has just started.
    if collector.failed_before {
        tracing::error!(%error, "images not collected, several times in a row");
        node_event(kubelet, "ImageGCFailed", &error.to_string());
    } else {
        tracing::warn!(%error, "images not collected");
    }
    collector.failed_before = true;
}

fn node_event(kubelet: &Kubelet, reason: &str, text: &str) {
    let name = kubelet.config.node_name.clone();
    // Upstream's node agent takes the name for the uid.
    let regarding = Regarding {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        uid: name.clone(),
        name,
        ..Regarding::default()
    };
    kubelet.recorder.record(&regarding, EventType::Warning, reason, text);
}

async fn collect(
    kubelet: &Kubelet,
    collector: &mut Collector,
    began: Timestamp,
) -> Result<(), CollectError> {
    let policy = kubelet.config.images.gc;
    let images = &kubelet.deps.images;
    let now = kubelet.deps.clock.now();
    let present = images.list_images(None).await?;
    kubelet.pulled.prune(&present.iter().map(|image| image.id.clone()).collect());
    let containers = kubelet.deps.runtime.list_containers(&ContainerFilter::default()).await?;
    let used = containers.into_iter().map(|container| container.image_id).collect();
    collector.detect(&present, &used, now);
    for id in collector.too_old(&policy, now, began) {
        images.remove_image(&ImageSpec::from(id.as_str())).await?;
        collector.records.remove(&id);
        kubelet.metrics.images_collected.with_label_values(&["age"]).inc();
    }
    let disk = disk(kubelet).await?;
    if disk.capacity == 0 {
        return Err(CollectError::Capacity);
    }
    let Some((percent, wanted)) = to_free(&policy, disk) else { return Ok(()) };
    let (mut freed, mut errors) = (0u64, Vec::new());
    for (id, size) in collector.too_many(&policy, now) {
        tracing::info!(image = id, size, "removing an image for want of space");
        if let Err(error) = images.remove_image(&ImageSpec::from(id.as_str())).await {
            errors.push(error.to_string());
            continue;
        }
        collector.records.remove(&id);
        kubelet.metrics.images_collected.with_label_values(&["space"]).inc();
        freed = freed.saturating_add(size);
        if freed >= wanted {
            break;
        }
    }
    if !errors.is_empty() {
        return Err(CollectError::Deletion { wanted, freed, errors: errors.join(", ") });
    }
    if freed < wanted {
        let capacity = size_text(disk.capacity);
        return Err(CollectError::Insufficient { percent, capacity, freed });
    }
    Ok(())
}

async fn disk(kubelet: &Kubelet) -> Result<Disk, CollectError> {
    let info = kubelet.deps.images.image_fs_info().await?;
    let first = info.image_filesystems.first().ok_or(CollectError::NoDisk)?;
    let disk = nix::sys::statvfs::statvfs(&first.mountpoint).map_err(CollectError::Disk)?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
    Ok(Disk { capacity: bytes(disk.blocks()), available: bytes(disk.blocks_available()) })
}

/// A size with one digit behind the point.
fn size_text(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut tenths, mut unit) = (u128::from(bytes) * 10, 0);
    while tenths >= 10_240 && unit + 1 < units.len() {
        tenths /= 1024;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} B");
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn image(id: &str, size: u64) -> Image {
        Image { id: id.into(), size, ..Image::default() }
    }

    fn used(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn ids<T>(pairs: Vec<(String, T)>) -> Vec<String> {
        pairs.into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn those_unused_for_longest_go_first_and_those_in_use_stay() {
        let mut collector = Collector::default();
        let images = [image("a", 1), image("b", 1), image("c", 1), image("d", 1)];
        collector.detect(&images, &used(&["a", "b"]), at(0));
        collector.detect(&images, &used(&["b"]), at(10));
        let policy = ImageGcPolicy::default();
        assert_eq!(ids(collector.too_many(&policy, at(10))), ["c", "d", "a"]);
        collector.detect(&images[..1], &used(&[]), at(20));
        assert_eq!(ids(collector.too_many(&policy, at(20))), ["a"]);
    }

    #[test]
    fn an_image_that_just_came_and_one_that_is_pinned_stay() {
        let mut collector = Collector::default();
        collector.detect(&[], &used(&[]), at(0));
        let pinned = Image { pinned: true, ..image("b", 1) };
        let images = [image("a", 1), pinned];
        collector.detect(&images, &used(&[]), at(10));
        let policy = ImageGcPolicy::default();
        assert!(collector.too_many(&policy, at(129)).is_empty());
        assert_eq!(ids(collector.too_many(&policy, at(130))), ["a"]);
    }

    #[test]
    fn an_image_goes_by_age_only_when_it_was_watched_for_so_long() {
        let mut collector = Collector::default();
        let images = [image("a", 1), image("b", 1)];
        let policy =
            ImageGcPolicy { max_age: Duration::from_secs(100), ..ImageGcPolicy::default() };
        collector.detect(&images, &used(&["b"]), at(0));
        assert!(collector.too_old(&policy, at(100), at(0)).is_empty());
        collector.detect(&images, &used(&["b"]), at(101));
        assert_eq!(collector.too_old(&policy, at(101), at(0)), ["a"]);
        let never = ImageGcPolicy::default();
        assert!(collector.too_old(&never, at(1_000_000), at(0)).is_empty());
    }

    #[test]
    fn the_disk_is_freed_down_to_the_lower_threshold() {
        let policy = ImageGcPolicy::default();
        let disk = |available| Disk { capacity: 1000, available };
        assert_eq!(to_free(&policy, disk(151)), Some((85, 49)));
        assert_eq!(to_free(&policy, disk(160)), None);
        assert_eq!(to_free(&policy, disk(0)), Some((100, 200)));
        assert_eq!(to_free(&policy, disk(5000)), None, "more than there is");
    }

    #[test]
    fn sizes_print_as_upstreams() {
        for (bytes, text) in
            [(5, "5 B"), (10 << 30, "10.0 GiB"), (28_346_784_973, "26.4 GiB"), (1536, "1.5 KiB")]
        {
            assert_eq!(size_text(bytes), text);
        }
    }
}
