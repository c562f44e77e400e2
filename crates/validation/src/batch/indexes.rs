//! Texts of indexes such as `0-2,5`.

/// First and last index of each interval.
pub(super) type Intervals = Vec<(i64, i64)>;

/// Reads a text of indexes below `completions`, in upstream's words where it is none.
pub(super) fn parse(text: &str, completions: i64) -> Result<Intervals, String> {
    let mut intervals = Intervals::new();
    if text.is_empty() {
        return Ok(intervals);
    }
    for fragment in text.split(',') {
        let parts: Vec<&str> = fragment.split('-').collect();
        if parts.len() > 2 {
            return Err(format!(
                "the fragment {fragment:?} violates the requirement that an index interval can \
                 have at most two parts separated by '-'"
            ));
        }
        let mut ends = Vec::with_capacity(2);
        for part in &parts {
            let index: i64 = part
                .parse()
                .map_err(|_| format!("cannot convert string to integer for index: {part:?}"))?;
            if index >= completions {
                return Err(format!("too large index: {part:?}"));
            }
            ends.push(index);
        }
        let (first, last) = (ends[0], ends[ends.len() - 1]);
        let order = |previous: i64, current: i64| {
            format!("non-increasing order, previous: {previous}, current: {current}")
        };
        if let Some((_, before)) = intervals.last().filter(|(_, before)| first <= *before) {
            return Err(order(*before, first));
        }
        if parts.len() == 2 && last <= first {
            return Err(order(first, last));
        }
        intervals.push((first, last));
    }
    Ok(intervals)
}

/// How many indexes there are.
pub(super) fn count(intervals: &Intervals) -> i64 {
    intervals.iter().map(|(first, last)| last - first + 1).sum()
}

/// The first index that both have.
pub(super) fn overlap(a: &Intervals, b: &Intervals) -> Option<i64> {
    let common = |(a_first, a_last): &(i64, i64)| {
        b.iter()
            .find(|(b_first, b_last)| a_first <= b_last && b_first <= a_last)
            .map(|(b_first, _)| *a_first.max(b_first))
    };
    a.iter().find_map(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_or_refused_in_upstream_words() {
        assert_eq!(parse("", 3), Ok(vec![]));
        assert_eq!(parse("0,2-4", 5), Ok(vec![(0, 0), (2, 4)]));
        assert_eq!(count(&vec![(0, 0), (2, 4)]), 4);
        for (text, why) in [
            (
                "1-2-3",
                "the fragment \"1-2-3\" violates the requirement that an index interval can \
                       have at most two parts separated by '-'",
            ),
            ("x", "cannot convert string to integer for index: \"x\""),
            ("0-5", "too large index: \"5\""),
            ("2,1", "non-increasing order, previous: 2, current: 1"),
            ("3-3", "non-increasing order, previous: 3, current: 3"),
        ] {
            assert_eq!(parse(text, 5), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn the_first_common_index_is_found() {
        assert_eq!(overlap(&vec![(0, 1), (4, 9)], &vec![(2, 3), (6, 7)]), Some(6));
        assert_eq!(overlap(&vec![(0, 1)], &vec![(2, 3)]), None);
    }
}
