//! Nodes that have the images already are better.

use crate::framework::{CycleState, Plugin, SCORE_MAX};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

/// Bounds between which the size of present images counts: upstream's thresholds.
const SIZE_MIN: i64 = 23 * 1024 * 1024;
const SIZE_MAX_PER_CONTAINER: i64 = 1000 * 1024 * 1024;

/// How many of all nodes have each image of the pod.
struct Spread {
    nodes: i64,
    having: Vec<(String, i64)>,
}

/// Scores by the size of the pod's images that the node has.
pub struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        _: &Snapshot,
        fitting: &[&NodeInfo],
    ) -> bool {
        // With one node there is nothing to prefer.
        if fitting.len() < 2 {
            return false;
        }
        let count = |image: &str| {
            let having = fitting.iter().filter(|node| node.images.contains_key(image));
            i64::try_from(having.count()).unwrap_or(0)
        };
        let having: Vec<_> = pod
            .images
            .iter()
            .map(|image| normalized(image))
            .map(|image| (image.clone(), count(&image)))
            .collect();
        let useful = having.iter().any(|(_, count)| *count > 0);
        state.write(Spread { nodes: i64::try_from(fitting.len()).unwrap_or(1), having });
        useful
    }

    fn score(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(spread) = state.read::<Spread>() else { return 0 };
        // An image that few nodes have counts less, so that its pods do not pile up on them.
        let sum: i64 = spread
            .having
            .iter()
            .filter_map(|(image, having)| Some(node.images.get(image)? * having / spread.nodes))
            .sum();
        let containers = i64::try_from(spread.having.len()).unwrap_or(1);
        let max = SIZE_MAX_PER_CONTAINER * containers;
        SCORE_MAX * (sum.clamp(SIZE_MIN, max) - SIZE_MIN) / (max - SIZE_MIN)
    }
}

/// An image without a tag means `latest`, as nodes report it.
fn normalized(image: &str) -> String {
    let after_slash = image.rsplit('/').next().unwrap_or(image);
    if after_slash.contains(':') || image.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}
