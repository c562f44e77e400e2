//! How events are kept, by upstream's flags and with their defaults and errors.
//!
//! Upstream: `apiserver/pkg/server/options/audit.go`.

use std::path::PathBuf;
use std::time::Duration;

/// Whether requests wait for their events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No.
    Batch,
    /// Their answers do.
    Blocking,
    /// So do they, and are refused when the first event of theirs cannot be stored.
    BlockingStrict,
}

impl Mode {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Batch, "batch"),
        (Self::Blocking, "blocking"),
        (Self::BlockingStrict, "blocking-strict"),
    ];

    /// The mode of a flag; `plugin` is `log` or `webhook`.
    ///
    /// # Errors
    /// When there is no such mode.
    pub fn parse(plugin: &'static str, word: &str) -> Result<Self, OptionsError> {
        let found = Self::ALL.iter().find(|(_, known)| *known == word);
        found
            .map(|(mode, _)| *mode)
            .ok_or_else(|| OptionsError::Mode { plugin, word: word.to_owned() })
    }
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// Upstream's older format.
    Legacy,
}

impl Format {
    /// The format of a flag.
    ///
    /// # Errors
    /// When there is no such format.
    pub fn parse(word: &str) -> Result<Self, OptionsError> {
        match word {
            "json" => Ok(Self::Json),
            "legacy" => Ok(Self::Legacy),
            _ => Err(OptionsError::Format(word.to_owned())),
        }
    }
}

/// How events are gathered in [`Mode::Batch`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchOptions {
    /// Events that may wait; more are lost.
    pub buffer_size: usize,
    /// Events that are delivered together.
    pub max_size: usize,
    /// How long the first of them waits for others.
    pub max_wait: Duration,
    /// Whether the rate of deliveries is limited.
    pub throttle: bool,
    /// Deliveries a second.
    pub throttle_qps: f32,
    /// Deliveries at once after a pause.
    pub throttle_burst: u32,
}

impl BatchOptions {
    /// Upstream's defaults for a log.
    pub fn log() -> Self {
        Self {
            max_size: 1,
            throttle: false,
            max_wait: Duration::ZERO,
            throttle_qps: 0.0,
            throttle_burst: 0,
            ..Self::webhook()
        }
    }

    /// Upstream's defaults for a webhook.
    pub fn webhook() -> Self {
        Self {
            buffer_size: 10_000,
            max_size: 400,
            max_wait: Duration::from_secs(30),
            throttle: true,
            throttle_qps: 10.0,
            throttle_burst: 15,
        }
    }
}

/// How large an event may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TruncateOptions {
    /// Whether there is a limit.
    pub enabled: bool,
    /// Bytes of the events that are delivered together.
    pub max_batch_size: usize,
    /// Bytes of an event.
    pub max_event_size: usize,
}

impl Default for TruncateOptions {
    fn default() -> Self {
        Self { enabled: false, max_batch_size: 10 << 20, max_event_size: 100 << 10 }
    }
}

/// Events in a file.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The file; `-` is the standard output.
    pub path: PathBuf,
    /// Days for which old files are kept; 0 is for ever.
    pub max_age_days: u32,
    /// Old files that are kept; 0 is all.
    pub max_backups: usize,
    /// Bytes of a file before another is begun; 0 is no limit.
    pub max_bytes: u64,
    /// Whether old files are compressed.
    pub compress: bool,
    /// What a line looks like.
    pub format: Format,
    /// Whether requests wait.
    pub mode: Mode,
    /// How events are gathered.
    pub batch: BatchOptions,
    /// How large they may be.
    pub truncate: TruncateOptions,
}

impl LogOptions {
    /// Upstream's defaults.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            max_age_days: 366,
            max_backups: 100,
            max_bytes: 100 << 20,
            compress: false,
            format: Format::Json,
            mode: Mode::Blocking,
            batch: BatchOptions::log(),
            truncate: TruncateOptions::default(),
        }
    }

    /// Finds what does not fit together.
    ///
    /// # Errors
    /// The first of it.
    pub fn check(&self) -> Result<(), OptionsError> {
        check("log", self.mode, &self.batch, &self.truncate)
    }
}

/// Where a webhook is, and who calls it.
#[derive(Clone, Default)]
pub struct WebhookTarget {
    /// The URL that events are posted to.
    pub url: String,
    /// The authorities that its certificate must come from, PEM.
    pub certificate_authority: Vec<u8>,
    /// The name in its certificate, if it is not the URL's.
    pub tls_server_name: Option<String>,
    /// Certificate and key to show, PEM.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
    /// A bearer token to show.
    pub token: Option<String>,
    /// A file with one, read for every request.
    pub token_file: Option<PathBuf>,
}

impl std::fmt::Debug for WebhookTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Credentials do not belong into logs.
        f.debug_struct("WebhookTarget").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Events for another server.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// Which.
    pub target: WebhookTarget,
    /// The wait before the first repetition of what failed.
    pub initial_backoff: Duration,
    /// Whether requests wait.
    pub mode: Mode,
    /// How events are gathered.
    pub batch: BatchOptions,
    /// How large they may be.
    pub truncate: TruncateOptions,
}

impl WebhookOptions {
    /// Upstream's defaults.
    pub fn new(target: WebhookTarget) -> Self {
        Self {
            target,
            initial_backoff: Duration::from_secs(10),
            mode: Mode::Batch,
            batch: BatchOptions::webhook(),
            truncate: TruncateOptions::default(),
        }
    }

    /// Finds what does not fit together.
    ///
    /// # Errors
    /// The first of it.
    pub fn check(&self) -> Result<(), OptionsError> {
        check("webhook", self.mode, &self.batch, &self.truncate)
    }
}

/// Options that make no sense. The texts are upstream's.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// No such mode.
    #[error(
        "invalid audit {plugin} mode {word}, allowed modes are \"batch,blocking,blocking-strict\""
    )]
    Mode {
        /// `log` or `webhook`.
        plugin: &'static str,
        /// The word.
        word: String,
    },
    /// No such format.
    #[error("invalid audit log format {0}, allowed formats are \"legacy,json\"")]
    Format(String),
    /// A number that must be positive.
    #[error("invalid audit {of} {plugin} {what} {value}, must be a positive number")]
    NotPositive {
        /// `batch` or `truncate`.
        of: &'static str,
        /// `log` or `webhook`.
        plugin: &'static str,
        /// Which number.
        what: &'static str,
        /// What it is.
        value: String,
    },
    /// Events that may be larger than what they are delivered in.
    #[error(
        "invalid audit truncate {plugin} max batch size {batch}, must be greater than max event \
         size ({event})"
    )]
    BatchSmallerThanEvent {
        /// `log` or `webhook`.
        plugin: &'static str,
        /// Bytes of a delivery.
        batch: usize,
        /// Bytes of an event.
        event: usize,
    },
}

fn check(
    plugin: &'static str,
    mode: Mode,
    batch: &BatchOptions,
    truncate: &TruncateOptions,
) -> Result<(), OptionsError> {
    let positive = |of, what, value: f64| {
        if value > 0.0 {
            return Ok(());
        }
        Err(OptionsError::NotPositive { of, plugin, what, value: value.to_string() })
    };
    #[expect(clippy::cast_precision_loss, reason = "only whether it is zero matters")]
    let count = |number: usize| number as f64;
    if mode == Mode::Batch {
        positive("batch", "buffer size", count(batch.buffer_size))?;
        positive("batch", "max batch size", count(batch.max_size))?;
        if batch.throttle {
            positive("batch", "throttle QPS", f64::from(batch.throttle_qps))?;
            positive("batch", "throttle burst", f64::from(batch.throttle_burst))?;
        }
    }
    positive("truncate", "max event size", count(truncate.max_event_size))?;
    if truncate.max_batch_size < truncate.max_event_size {
        return Err(OptionsError::BatchSmallerThanEvent {
            plugin,
            batch: truncate.max_batch_size,
            event: truncate.max_event_size,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_told_in_upstreams_words() {
        let mut options = LogOptions::new("x".into());
        assert!(options.check().is_ok());
        options.batch.buffer_size = 0;
        assert!(options.check().is_ok(), "nobody batches");
        options.mode = Mode::Batch;
        assert_eq!(
            options.check().unwrap_err().to_string(),
            "invalid audit batch log buffer size 0, must be a positive number"
        );
        let mut options = WebhookOptions::new(WebhookTarget::default());
        options.truncate.max_batch_size = 1;
        assert_eq!(
            options.check().unwrap_err().to_string(),
            "invalid audit truncate webhook max batch size 1, must be greater than max event size \
             (102400)"
        );
        assert_eq!(
            Mode::parse("log", "sometimes").unwrap_err().to_string(),
            "invalid audit log mode sometimes, allowed modes are \"batch,blocking,blocking-strict\""
        );
        assert_eq!(
            Format::parse("xml").unwrap_err().to_string(),
            "invalid audit log format xml, allowed formats are \"legacy,json\""
        );
    }
}
