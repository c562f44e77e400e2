//! A log file that is put aside when it is large enough.
//!
//! Old files are named as upstream's are: `audit-2026-01-02T03-04-05.678.log`, with `.gz` when they
//! are compressed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use clock::SharedClock;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::{SignedDuration, Timestamp};

/// The time in the names of old files.
const TIME: &str = "%Y-%m-%dT%H-%M-%S.%3f";
const GZIP: &str = ".gz";

/// When a file is put aside, and what becomes of it then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotation {
    /// Bytes of a file; 0 is no limit.
    pub(crate) max_bytes: u64,
    /// Old files that are kept; 0 is all.
    pub(crate) max_backups: usize,
    /// Days for which they are kept; 0 is for ever.
    pub(crate) max_age_days: u32,
    /// Whether they are compressed.
    pub(crate) compress: bool,
}

/// The file that is written.
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    rotation: Rotation,
    clock: SharedClock,
    /// Who is busy with old files.
    tidying: Option<JoinHandle<()>>,
}

impl LogFile {
    /// Opens a file for appending. It, and its directory, are made where they are missing, and only
    /// the owner reads them.
    pub(crate) fn open(path: &Path, rotation: Rotation, clock: SharedClock) -> io::Result<Self> {
        if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let (file, size) = append(path)?;
        let mut log = Self { path: path.to_owned(), file, size, rotation, clock, tidying: None };
        log.tidy();
        Ok(log)
    }

    /// Writes lines, which end at `ends`.
    ///
    /// # Errors
    /// How many lines have been written whole, and why the next one was not.
    pub(crate) fn write(&mut self, text: &[u8], ends: &[usize]) -> Result<(), (usize, io::Error)> {
        let (mut begin, mut written) = (0, 0);
        while written < ends.len() {
            let room = match self.rotation.max_bytes {
                0 => u64::MAX,
                max => max.saturating_sub(self.size),
            };
            let fits = |end: usize| (end - begin) as u64 <= room;
            let count = ends[written..].iter().take_while(|end| fits(**end)).count();
            if count == 0 {
                let length = (ends[written] - begin) as u64;
                if length > self.rotation.max_bytes {
                    let max = self.rotation.max_bytes;
                    let why = format!("write length {length} exceeds maximum file size {max}");
                    return Err((written, io::Error::other(why)));
                }
                self.rotate().map_err(|error| (written, error))?;
                continue;
            }
            let end = ends[written + count - 1];
            self.file.write_all(&text[begin..end]).map_err(|error| (written, error))?;
            self.size += (end - begin) as u64;
            (begin, written) = (end, written + count);
        }
        Ok(())
    }

    /// Puts the file aside and begins another.
    fn rotate(&mut self) -> io::Result<()> {
        let mut time = self.clock.now();
        let mut aside = self.aside(time);
        while aside.exists() || with_suffix(&aside, GZIP).exists() {
            // Two within a millisecond: neither may be lost.
            time = time.saturating_add(SignedDuration::from_millis(1)).unwrap_or(time);
            aside = self.aside(time);
        }
        std::fs::rename(&self.path, &aside)?;
        (self.file, self.size) = append(&self.path)?;
        self.tidy();
        Ok(())
    }

    fn aside(&self, time: Timestamp) -> PathBuf {
        let (stem, extension) = name_of(&self.path);
        self.path.with_file_name(format!("{stem}-{}{extension}", time.strftime(TIME)))
    }

    /// Removes and compresses old files, on a thread of its own: there may be much to compress.
    fn tidy(&mut self) {
        let does_nothing = self.rotation.max_backups == 0
            && self.rotation.max_age_days == 0
            && !self.rotation.compress;
        let is_busy = self.tidying.as_ref().is_some_and(|busy| !busy.is_finished());
        if does_nothing || is_busy {
            return;
        }
        let (path, rotation, now) = (self.path.clone(), self.rotation, self.clock.now());
        let work = move || {
            if let Err(error) = tidy(&path, rotation, now) {
                tracing::warn!(%error, "old audit logs cannot be tidied up");
            }
        };
        let started = std::thread::Builder::new().name("audit log tidy".to_owned()).spawn(work);
        self.tidying = started.ok();
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        if let Some(tidying) = self.tidying.take() {
            // What panicked there has been told.
            tidying.join().ok();
        }
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let mut file =
        OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
    let mut size = file.metadata()?.len();
    if size > 0 {
        // A process that was killed may have left half a line.
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            size += 1;
        }
    }
    Ok((file, size))
}

/// Removes the old files that are too many or too old, and compresses the rest.
fn tidy(path: &Path, rotation: Rotation, now: Timestamp) -> io::Result<()> {
    let mut old = old_files(path)?;
    old.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    let hours = i64::from(rotation.max_age_days) * 24;
    let oldest = now.checked_sub(SignedDuration::from_hours(hours)).unwrap_or(Timestamp::MIN);
    for (at, (time, path)) in old.into_iter().enumerate() {
        let is_too_many = rotation.max_backups > 0 && at >= rotation.max_backups;
        let is_too_old = rotation.max_age_days > 0 && time < oldest;
        if is_too_many || is_too_old {
            std::fs::remove_file(&path)?;
        } else if rotation.compress && !path.to_string_lossy().ends_with(GZIP) {
            compress(&path)?;
        }
    }
    Ok(())
}

/// The files that were put aside, with the times in their names.
fn old_files(path: &Path) -> io::Result<Vec<(Timestamp, PathBuf)>> {
    let (stem, extension) = name_of(path);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory.unwrap_or(Path::new(".")))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let time = name
            .strip_suffix(GZIP)
            .unwrap_or(&name)
            .strip_prefix(&format!("{stem}-"))
            .and_then(|rest| rest.strip_suffix(&extension))
            .and_then(parse_time);
        if let Some(time) = time {
            found.push((time, entry.path()));
        }
    }
    Ok(found)
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once('T')?;
    format!("{date}T{}Z", time.replacen('-', ":", 2)).parse().ok()
}

/// The beginning and the end of the name of a file, between which the time goes.
fn name_of(path: &Path) -> (String, String) {
    let text =
        |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let extension = text(path.extension());
    let dot = if extension.is_empty() { "" } else { "." };
    (text(path.file_stem()), format!("{dot}{extension}"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Replaces a file by a compressed one. A half of one that a crash left is begun anew.
fn compress(path: &Path) -> io::Result<()> {
    let (to, half) = (with_suffix(path, GZIP), with_suffix(path, ".gz.half"));
    let out = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&half)?;
    let mut encoder = GzEncoder::new(out, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    std::fs::rename(&half, &to)?;
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;
    use std::time::Duration;

    use clock::ManualClock;

    use super::*;

    struct Rotated {
        directory: tempfile::TempDir,
        clock: Arc<ManualClock>,
        log: Option<LogFile>,
    }

    impl Rotated {
        fn new(rotation: Rotation) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let clock = Arc::new(ManualClock::new("2026-01-02T03:04:05.678Z".parse().unwrap()));
            let path = directory.path().join("logs/audit.log");
            let log = Some(LogFile::open(&path, rotation, clock.clone()).unwrap());
            Self { directory, clock, log }
        }

        fn line(&mut self, text: &str) {
            let text = format!("{text}\n");
            self.log.as_mut().unwrap().write(text.as_bytes(), &[text.len()]).unwrap();
        }

        /// Names and sizes, after all is tidy.
        fn files(&mut self) -> Vec<String> {
            let (path, rotation) =
                (self.log.as_ref().unwrap().path.clone(), self.log.as_ref().unwrap().rotation);
            self.log = None;
            let files = std::fs::read_dir(self.directory.path().join("logs")).unwrap();
            let mut names: Vec<String> = files
                .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            self.log = Some(LogFile::open(&path, rotation, self.clock.clone()).unwrap());
            names
        }
    }

    fn rotation(max_bytes: u64) -> Rotation {
        Rotation { max_bytes, max_backups: 0, max_age_days: 0, compress: false }
    }

    #[test]
    fn a_full_file_is_put_aside_under_upstreams_name() {
        let mut rotated = Rotated::new(rotation(10));
        rotated.line("1234");
        rotated.line("5678");
        rotated.line("9");
        assert_eq!(rotated.files(), ["audit-2026-01-02T03-04-05.678.log", "audit.log"]);
        rotated.line("abcdefgh");
        rotated.line("ijk");
        assert_eq!(
            rotated.files(),
            [
                "audit-2026-01-02T03-04-05.678.log",
                "audit-2026-01-02T03-04-05.679.log",
                "audit-2026-01-02T03-04-05.680.log",
                "audit.log"
            ]
        );
        let path = rotated.directory.path().join("logs/audit.log");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let too_long = rotated.log.as_mut().unwrap().write(b"0123456789a\n", &[12]).unwrap_err();
        assert_eq!(too_long.1.to_string(), "write length 12 exceeds maximum file size 10");
    }

    #[test]
    fn lines_of_one_write_are_never_parted() {
        let mut rotated = Rotated::new(rotation(8));
        let text = b"aaa\nbbb\nccc\nddd\neee\n";
        rotated.log.as_mut().unwrap().write(text, &[4, 8, 12, 16, 20]).unwrap();
        let names = rotated.files();
        let read = |name: &String| {
            std::fs::read_to_string(rotated.directory.path().join("logs").join(name)).unwrap()
        };
        let texts: Vec<String> = names.iter().map(read).collect();
        assert_eq!(texts, ["aaa\nbbb\n", "ccc\nddd\n", "eee\n"]);
    }

    #[test]
    fn old_files_are_compressed_and_removed_by_number_and_age() {
        let keep = Rotation { max_backups: 2, compress: true, ..rotation(4) };
        let mut rotated = Rotated::new(keep);
        for line in ["a", "b", "c", "d"] {
            rotated.line(&line.repeat(3));
            rotated.clock.advance(Duration::from_secs(1));
            rotated.files();
        }
        rotated.files();
        assert_eq!(
            rotated.files(),
            [
                "audit-2026-01-02T03-04-07.678.log.gz",
                "audit-2026-01-02T03-04-08.678.log.gz",
                "audit.log"
            ]
        );
        rotated.log.as_mut().unwrap().rotation.max_age_days = 1;
        rotated.clock.advance(Duration::from_secs(86_400));
        rotated.files();
        assert_eq!(rotated.files(), ["audit.log"]);
    }

    #[test]
    fn half_a_line_of_a_killed_process_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        std::fs::write(&path, "whole\nhal").unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let mut log = LogFile::open(&path, rotation(0), clock).unwrap();
        log.write(b"next\n", &[5]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\nhal\nnext\n");
    }
}
