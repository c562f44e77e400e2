//! Events in a file, one a line.
//!
//! Events are printed and written by a task of their own, as many together as wait. A disk that is
//! slow, and objects that are large, are left to a thread: they must not hold up a server that
//! answers others meanwhile. Otherwise a thread would only cost: to wake one, and to be woken by it,
//! takes several times what a line takes.
//!
//! Upstream: `apiserver/plugin/pkg/audit/log`.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clock::SharedClock;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::backend::{Entry, Message};
use crate::buffer::{self, Throttle};
use crate::file::{LogFile, Rotation};
use crate::metrics::Metrics;
use crate::options::{BatchOptions, Format, LogOptions, Mode, TruncateOptions};
use crate::print;

const PLUGIN: &str = "log";
/// Events and bytes that are written together. Whoever waits for the first of them waits for all.
const TOGETHER: usize = 512;
const TOGETHER_BYTES: usize = 1 << 20;
/// Bytes of events that are printed on a thread.
const LARGE: usize = 128 << 10;
/// A write that takes as long is not for a task; the next one goes to a thread.
const SLOW: Duration = Duration::from_millis(5);
/// How long the task rests after it has written, when nobody waits for it: what comes meanwhile is
/// written at once, and requests do not have to wake it.
const REST: Duration = Duration::from_millis(5);

/// Opens the file and starts the task, which ends when everything is written.
pub(crate) fn start(
    options: LogOptions,
    receiver: mpsc::Receiver<Message>,
    clock: &SharedClock,
    metrics: &Arc<Metrics>,
) -> io::Result<JoinHandle<Option<()>>> {
    let out = if options.path == Path::new("-") {
        Out::Standard
    } else {
        let rotation = Rotation {
            max_bytes: options.max_bytes,
            max_backups: options.max_backups,
            max_age_days: options.max_age_days,
            compress: options.compress,
        };
        Out::File(LogFile::open(&options.path, rotation, clock.clone())?)
    };
    let (format, truncate) = (options.format, options.truncate);
    let writer = Writer { out, format, truncate, metrics: metrics.clone(), text: Vec::new() };
    let is_batched = options.mode == Mode::Batch;
    let is_gathered = is_batched && (options.batch.max_size > 1 || options.batch.throttle);
    let receiver =
        if is_gathered { gathered(receiver, options.batch, clock.clone()) } else { receiver };
    let rest = is_batched.then_some(REST);
    Ok(stdx::task::spawn("audit log", run(writer, receiver, rest, clock.clone())))
}

/// The same events, held back until there are enough of them, or their time has come.
fn gathered(
    mut receiver: mpsc::Receiver<Message>,
    batch: BatchOptions,
    clock: SharedClock,
) -> mpsc::Receiver<Message> {
    let (sender, gathered) = mpsc::channel(1);
    drop(stdx::task::spawn("audit log batches", async move {
        let mut throttle = Throttle::new(&batch, &*clock);
        loop {
            let collected = buffer::collect(&mut receiver, &batch, &clock).await;
            if let Some(throttle) = &mut throttle
                && !collected.entries.is_empty()
            {
                throttle.accept(&clock).await;
            }
            for entry in collected.entries {
                if sender.send(Message::Entry(entry)).await.is_err() {
                    return;
                }
            }
            if collected.is_last {
                return;
            }
        }
    }));
    gathered
}

async fn run(
    mut writer: Writer,
    mut receiver: mpsc::Receiver<Message>,
    rest: Option<Duration>,
    clock: SharedClock,
) {
    let mut is_slow = false;
    loop {
        let Waiting { entries, bytes, is_last } = Waiting::take(&mut receiver).await;
        let begun = clock.monotonic();
        if is_slow || bytes > LARGE {
            let work = tokio::task::spawn_blocking(move || {
                writer.write(entries);
                writer
            });
            // It panics with the thread, and the task says so.
            writer = work.await.expect("the log is written");
        } else {
            writer.write(entries);
        }
        is_slow = clock.monotonic().saturating_duration_since(begun) > SLOW;
        if is_last {
            // There may be something to be tidied up.
            tokio::task::spawn_blocking(move || drop(writer)).await.ok();
            return;
        }
        if let Some(rest) = rest {
            clock.sleep(rest).await;
        }
    }
}

/// What is to be written.
struct Waiting {
    entries: Vec<Entry>,
    bytes: usize,
    is_last: bool,
}

impl Waiting {
    /// Waits for an event, and takes those that are there too.
    async fn take(receiver: &mut mpsc::Receiver<Message>) -> Self {
        let mut waiting = Self { entries: Vec::new(), bytes: 0, is_last: false };
        let mut next = receiver.recv().await;
        loop {
            match next {
                Some(Message::Entry(entry)) => {
                    waiting.bytes += entry.event.object_bytes();
                    waiting.entries.push(entry);
                }
                Some(Message::Stop) | None => {
                    waiting.is_last = true;
                    return waiting;
                }
            }
            if waiting.entries.len() >= TOGETHER || waiting.bytes >= TOGETHER_BYTES {
                return waiting;
            }
            next = match receiver.try_recv() {
                Ok(message) => Some(message),
                Err(_) => return waiting,
            };
        }
    }
}

enum Out {
    File(LogFile),
    Standard,
}

struct Writer {
    out: Out,
    format: Format,
    truncate: TruncateOptions,
    metrics: Arc<Metrics>,
    text: Vec<u8>,
}

impl Writer {
    /// Prints and writes events, and tells who waits for them.
    fn write(&mut self, entries: Vec<Entry>) {
        let (mut printed, mut ends) = (Vec::with_capacity(entries.len()), Vec::new());
        self.text.clear();
        for entry in entries {
            let begin = self.text.len();
            match print::line(&entry.event, self.format, &self.truncate, &mut self.text) {
                Ok(()) => {
                    ends.push(self.text.len());
                    printed.push(entry);
                }
                Err(error) => {
                    self.text.truncate(begin);
                    self.metrics.lost(error.plugin(PLUGIN), 1, &error.to_string());
                    entry.finish(false);
                }
            }
        }
        let stored = match self.write_lines(&ends) {
            Ok(()) => printed.len(),
            Err((stored, error)) => {
                self.metrics.lost(PLUGIN, printed.len().saturating_sub(stored), &error.to_string());
                stored
            }
        };
        for (at, entry) in printed.into_iter().enumerate() {
            entry.finish(at < stored);
        }
        // One large event is not to be paid for by the memory of all that follow.
        self.text.clear();
        self.text.shrink_to(TOGETHER_BYTES);
    }

    /// Writes the text, whose lines end at `ends`.
    fn write_lines(&mut self, ends: &[usize]) -> Result<(), (usize, io::Error)> {
        match &mut self.out {
            Out::File(file) => file.write(&self.text, ends),
            Out::Standard => {
                let mut out = io::stdout().lock();
                let written = out.write_all(&self.text).and_then(|()| out.flush());
                written.map_err(|error| (0, error))
            }
        }
    }
}
