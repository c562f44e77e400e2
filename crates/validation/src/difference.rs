//! Unified differences of texts, as upstream shows what changed where nothing may.
//!
//! The matching is that of Python's `difflib`, which Go's port shares: the longest common run of
//! lines first, then the same on both sides of it. Lines that are too frequent in a long text do not
//! start a run.

use std::collections::HashMap;

/// Equal lines around a change.
const CONTEXT: usize = 3;
/// From this length on, a line in more than a hundredth of the text is too frequent.
const POPULAR_FROM: usize = 200;

/// Equal runs: start in the old text, start in the new one, length.
type Block = (usize, usize, usize);

/// One step from the old text to the new one: ranges in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    is_equal: bool,
    old: (usize, usize),
    new: (usize, usize),
}

/// The differences between two texts; empty when there are none.
pub(crate) fn unified(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut out = String::new();
    for group in grouped(steps(&old, &new)) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let ranges = (range(first.old.0, last.old.1), range(first.new.0, last.new.1));
        out.push_str(&format!("@@ -{} +{} @@\n", ranges.0, ranges.1));
        for step in group {
            if step.is_equal {
                lines(' ', &old[step.old.0..step.old.1], &mut out);
            } else {
                lines('-', &old[step.old.0..step.old.1], &mut out);
                lines('+', &new[step.new.0..step.new.1], &mut out);
            }
        }
    }
    out
}

fn lines(mark: char, lines: &[&str], out: &mut String) {
    for line in lines {
        out.push(mark);
        out.push_str(line);
        out.push('\n');
    }
}

fn range(start: usize, end: usize) -> String {
    match end - start {
        1 => (start + 1).to_string(),
        0 => format!("{start},0"),
        length => format!("{},{length}", start + 1),
    }
}

/// Steps in groups that are further apart than their context reaches.
fn grouped(mut steps: Vec<Step>) -> Vec<Vec<Step>> {
    if steps.iter().all(|step| step.is_equal) {
        return Vec::new();
    }
    if let Some(first) = steps.first_mut().filter(|step| step.is_equal) {
        first.old.0 = first.old.0.max(first.old.1.saturating_sub(CONTEXT));
        first.new.0 = first.new.0.max(first.new.1.saturating_sub(CONTEXT));
    }
    if let Some(last) = steps.last_mut().filter(|step| step.is_equal) {
        last.old.1 = last.old.1.min(last.old.0 + CONTEXT);
        last.new.1 = last.new.1.min(last.new.0 + CONTEXT);
    }
    let (mut groups, mut group) = (Vec::new(), Vec::new());
    for mut step in steps {
        if step.is_equal && step.old.1 - step.old.0 > 2 * CONTEXT {
            let end = (step.old.0 + CONTEXT, step.new.0 + CONTEXT);
            group.push(Step { old: (step.old.0, end.0), new: (step.new.0, end.1), ..step });
            groups.push(std::mem::take(&mut group));
            step.old.0 = step.old.1 - CONTEXT;
            step.new.0 = step.new.1 - CONTEXT;
        }
        group.push(step);
    }
    if group.iter().any(|step| !step.is_equal) {
        groups.push(group);
    }
    groups
}

fn steps(old: &[&str], new: &[&str]) -> Vec<Step> {
    let (mut at_old, mut at_new) = (0, 0);
    let mut steps = Vec::new();
    let mut blocks = matching_blocks(old, new);
    blocks.push((old.len(), new.len(), 0));
    for (i, j, length) in blocks {
        if at_old < i || at_new < j {
            steps.push(Step { is_equal: false, old: (at_old, i), new: (at_new, j) });
        }
        if length > 0 {
            steps.push(Step { is_equal: true, old: (i, i + length), new: (j, j + length) });
        }
        (at_old, at_new) = (i + length, j + length);
    }
    steps
}

fn matching_blocks(old: &[&str], new: &[&str]) -> Vec<Block> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, line) in new.iter().enumerate() {
        places.entry(line).or_default().push(at);
    }
    if new.len() >= POPULAR_FROM {
        let most = new.len() / 100 + 1;
        places.retain(|_, at| at.len() <= most);
    }
    let mut waiting = vec![(0, old.len(), 0, new.len())];
    let mut blocks = Vec::new();
    while let Some((old_from, old_to, new_from, new_to)) = waiting.pop() {
        let found = longest(old, new, &places, (old_from, old_to), (new_from, new_to));
        let (i, j, length) = found;
        if length == 0 {
            continue;
        }
        blocks.push(found);
        if old_from < i && new_from < j {
            waiting.push((old_from, i, new_from, j));
        }
        if i + length < old_to && j + length < new_to {
            waiting.push((i + length, old_to, j + length, new_to));
        }
    }
    blocks.sort_unstable();
    let mut joined: Vec<Block> = Vec::new();
    for (i, j, length) in blocks {
        match joined.last_mut() {
            Some(last) if last.0 + last.2 == i && last.1 + last.2 == j => last.2 += length,
            _ => joined.push((i, j, length)),
        }
    }
    joined
}

fn longest(
    old: &[&str],
    new: &[&str],
    places: &HashMap<&str, Vec<usize>>,
    (old_from, old_to): (usize, usize),
    (new_from, new_to): (usize, usize),
) -> Block {
    let (mut best_i, mut best_j, mut best) = (old_from, new_from, 0);
    // How long a run ends at each place of the new text, for the line before this one.
    let mut runs: HashMap<usize, usize> = HashMap::new();
    for (i, line) in old.iter().enumerate().take(old_to).skip(old_from) {
        let mut next = HashMap::new();
        for j in places.get(line).into_iter().flatten().copied() {
            if j < new_from {
                continue;
            }
            if j >= new_to {
                break;
            }
            let before = if j == 0 { 0 } else { runs.get(&(j - 1)).copied().unwrap_or(0) };
            let length = before + 1;
            next.insert(j, length);
            if length > best {
                (best_i, best_j, best) = (i + 1 - length, j + 1 - length, length);
            }
        }
        runs = next;
    }
    // Frequent lines start no run but prolong one.
    while best_i > old_from && best_j > new_from && old[best_i - 1] == new[best_j - 1] {
        (best_i, best_j, best) = (best_i - 1, best_j - 1, best + 1);
    }
    while best_i + best < old_to
        && best_j + best < new_to
        && old[best_i + best] == new[best_j + best]
    {
        best += 1;
    }
    (best_i, best_j, best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_line_is_shown_among_its_neighbours() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni";
        let new = "a\nb\nc\nd\nE\nf\ng\nh\ni";
        assert_eq!(unified(old, new), "@@ -2,7 +2,7 @@\n b\n c\n d\n-e\n+E\n f\n g\n h\n");
    }

    #[test]
    fn changes_that_are_far_apart_stand_in_groups_of_their_own() {
        let old: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        let mut new = old.clone();
        new[0] = "x".to_owned();
        new.remove(19);
        let diff = unified(&old.join("\n"), &new.join("\n"));
        assert_eq!(
            diff,
            "@@ -1,4 +1,4 @@\n-0\n+x\n 1\n 2\n 3\n@@ -17,4 +17,3 @@\n 16\n 17\n 18\n-19\n"
        );
    }

    #[test]
    fn equal_texts_do_not_differ() {
        assert_eq!(unified("a\nb", "a\nb"), "");
        assert_eq!(unified("a", ""), "@@ -1 +0,0 @@\n-a\n");
    }
}
