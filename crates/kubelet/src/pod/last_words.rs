//! What a container that ended had to say.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use cri::{ContainerState, ContainerStatus};

use crate::labels;

/// Upstream's limits: of the file, and of the log that stands in for it.
const FILE_BYTES_MAX: u64 = 4096;
const LOG_BYTES_MAX: u64 = 2048;
const LOG_LINES_MAX: usize = 80;

/// The message: the termination log, or the end of the container's log, or what the runtime says.
pub(crate) fn last_words(container: &ContainerStatus) -> String {
    if container.state != ContainerState::Exited {
        return String::new();
    }
    let annotation = |key: &str| container.annotations.get(key).map(String::as_str);
    let path = annotation(labels::TERMINATION_MESSAGE_PATH).unwrap_or_default();
    let mount = container.mounts.iter().find(|mount| mount.container_path == path);
    if let Some(mount) = mount
        && let Ok(bytes) = read_start(Path::new(&mount.host_path))
        && !bytes.is_empty()
    {
        return String::from_utf8_lossy(&bytes).into_owned();
    }
    let fall_back = annotation(labels::TERMINATION_MESSAGE_POLICY) == Some("FallbackToLogsOnError");
    if fall_back && container.exit_code != 0 {
        let log = read_end(Path::new(&container.log_path)).unwrap_or_default();
        let text = end_of_log(&String::from_utf8_lossy(&log));
        if !text.is_empty() {
            return text;
        }
    }
    container.message.clone()
}

fn read_start(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Enough of a log's end for its lines, of which each begins with a time.
fn read_end(path: &Path) -> std::io::Result<Vec<u8>> {
    let window = LOG_BYTES_MAX + 64 * LOG_LINES_MAX as u64;
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(window);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes)?;
    if from > 0 {
        let line = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        bytes.drain(..line);
    }
    Ok(bytes)
}

fn end_of_log(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let mut text = String::new();
    for line in &lines[lines.len().saturating_sub(LOG_LINES_MAX)..] {
        let mut fields = line.splitn(4, ' ');
        let (tag, content) = (fields.nth(2).unwrap_or("F"), fields.next().unwrap_or_default());
        text.push_str(content);
        if tag == "F" {
            text.push('\n');
        }
    }
    let limit = usize::try_from(LOG_BYTES_MAX).unwrap_or(usize::MAX);
    let mut from = text.len().saturating_sub(limit);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text.split_off(from)
}

#[cfg(test)]
mod tests {
    use cri::Mount;

    use super::*;
    use crate::pod::fixture;

    #[test]
    fn the_file_is_read_first_and_the_log_stands_in_on_error() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("words"), dir.path().join("0.log"));
        std::fs::write(&file, "done").unwrap();
        let line = "2026-11-20T10:00:00.000000000Z stdout F one\n";
        let part = "2026-11-20T10:00:00.000000000Z stderr P two\n";
        std::fs::write(&log, format!("{line}{part}{line}")).unwrap();
        let mut ended = fixture::status(&fixture::container("a"), ContainerState::Exited, 1);
        ended.log_path = log.display().to_string();
        ended.mounts = vec![Mount {
            container_path: "/dev/termination-log".into(),
            host_path: file.display().to_string(),
            ..Mount::default()
        }];
        let path = "/dev/termination-log".to_owned();
        ended.annotations.insert(labels::TERMINATION_MESSAGE_PATH.into(), path);
        assert_eq!(last_words(&ended), "done");
        std::fs::write(&file, "").unwrap();
        assert_eq!(last_words(&ended), "");
        let policy = "FallbackToLogsOnError".to_owned();
        ended.annotations.insert(labels::TERMINATION_MESSAGE_POLICY.into(), policy);
        assert_eq!(last_words(&ended), "one\ntwoone\n");
        ended.exit_code = 0;
        assert_eq!(last_words(&ended), "");
    }
}
