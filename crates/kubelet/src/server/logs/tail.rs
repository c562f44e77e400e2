//! Where the last lines of a file begin.

use std::io::{self, SeekFrom};

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

const BLOCK: u64 = 64 << 10;

/// The offset at which the last `lines` lines begin, read backwards.
pub(super) async fn start_of_last_lines(file: &mut File, lines: u64) -> io::Result<u64> {
    let size = file.metadata().await?.len();
    if lines == 0 {
        return Ok(size);
    }
    let mut found = 0;
    let mut end = size;
    let mut block = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        block.clear();
        file.seek(SeekFrom::Start(begin)).await?;
        (&mut *file).take(end - begin).read_to_end(&mut block).await?;
        for (back, byte) in (1..).zip(block.iter().rev()) {
            let at = end - back;
            // The line feed at the very end ends the last line and begins none.
            if *byte == b'\n' && at + 1 != size {
                found += 1;
                if found == lines {
                    return Ok(at + 1);
                }
            }
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_lines_are_found_across_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, &text).unwrap();
        let mut file = File::open(&path).await.unwrap();
        for lines in [1, 2, 10_000, 19_999] {
            let start = start_of_last_lines(&mut file, lines).await.unwrap();
            let start = usize::try_from(start).unwrap();
            assert_eq!(text[start..].lines().count() as u64, lines);
            assert!(text[start..].starts_with("line "));
        }
        assert_eq!(start_of_last_lines(&mut file, 50_000).await.unwrap(), 0);
        assert_eq!(start_of_last_lines(&mut file, 0).await.unwrap(), text.len() as u64);
    }
}
