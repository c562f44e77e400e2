//! Events in a file, one a line.
//!
//! Events are printed and written by a thread of their own, as many together as wait: a disk that
//! is slow stops nobody but those who are to wait for it.
//!
//! Upstream: `apiserver/plugin/pkg/audit/log`.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use clock::SharedClock;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::backend::{Entry, Message};
use crate::buffer::{self, Throttle};
use crate::file::{LogFile, Rotation};
use crate::metrics::Metrics;
use crate::options::{Format, LogOptions, Mode, TruncateOptions};
use crate::print;

const PLUGIN: &str = "log";
/// Events and bytes that are written together. Whoever waits for the first of them waits for all.
const TOGETHER: usize = 512;
const TOGETHER_BYTES: usize = 1 << 20;

/// Opens the file and starts the thread; the task ends when everything is written.
pub(crate) fn start(
    options: LogOptions,
    mut receiver: mpsc::Receiver<Message>,
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
    let mut writer = Writer { out, format, truncate, metrics: metrics.clone(), text: Vec::new() };
    let (ended, end) = oneshot::channel::<()>();
    let is_gathered =
        options.mode == Mode::Batch && (options.batch.max_size > 1 || options.batch.throttle);
    let direct = if is_gathered {
        let (sender, direct) = mpsc::channel(1);
        let (batch, clock) = (options.batch, clock.clone());
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
        direct
    } else {
        receiver
    };
    std::thread::Builder::new().name("audit log".to_owned()).spawn(move || {
        writer.run(direct);
        // Nobody may be waiting.
        ended.send(()).ok();
    })?;
    Ok(stdx::task::spawn("audit log end", async move { end.await.unwrap_or_default() }))
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
    fn run(&mut self, mut receiver: mpsc::Receiver<Message>) {
        while let Some(Message::Entry(first)) = receiver.blocking_recv() {
            let (mut entries, mut ends) = (Vec::new(), Vec::new());
            self.text.clear();
            let (mut next, mut is_last) = (Some(first), false);
            while let Some(entry) = next {
                self.print(entry, &mut entries, &mut ends);
                let is_enough = entries.len() >= TOGETHER || self.text.len() >= TOGETHER_BYTES;
                next = match (is_enough, receiver.try_recv()) {
                    (true, Err(_)) | (false, Err(_)) => None,
                    (_, Ok(Message::Stop)) => {
                        is_last = true;
                        None
                    }
                    (false, Ok(Message::Entry(entry))) => Some(entry),
                    (true, Ok(Message::Entry(entry))) => {
                        self.write(&mut entries, &mut ends);
                        Some(entry)
                    }
                };
            }
            self.write(&mut entries, &mut ends);
            if is_last {
                return;
            }
        }
    }

    fn print(&mut self, entry: Entry, entries: &mut Vec<Entry>, ends: &mut Vec<usize>) {
        let begin = self.text.len();
        match print::line(&entry.event, self.format, &self.truncate, &mut self.text) {
            Ok(()) => {
                ends.push(self.text.len());
                entries.push(entry);
            }
            Err(error) => {
                self.text.truncate(begin);
                self.metrics.lost(error.plugin(PLUGIN), 1, &error.to_string());
                entry.finish(false);
            }
        }
    }

    /// Writes the text, whose lines end at `ends`, and tells who waits for them.
    fn write(&mut self, entries: &mut Vec<Entry>, ends: &mut Vec<usize>) {
        let written = match &mut self.out {
            Out::File(file) => file.write(&self.text, ends),
            Out::Standard => {
                let mut out = io::stdout().lock();
                let written = out.write_all(&self.text).and_then(|()| out.flush());
                written.map_err(|error| (0, error))
            }
        };
        let stored = match written {
            Ok(()) => entries.len(),
            Err((stored, error)) => {
                let lost = entries.len() - stored.min(entries.len());
                self.metrics.lost(PLUGIN, lost, &error.to_string());
                stored
            }
        };
        for (at, entry) in entries.drain(..).enumerate() {
            entry.finish(at < stored);
        }
        ends.clear();
        self.text.clear();
    }
}
