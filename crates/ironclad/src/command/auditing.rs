//! Flags that say which requests the API server records, and where to. Upstream's.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use audit::{
    BatchOptions, Format, LogOptions, Mode, OptionsError, Sinks, TruncateOptions, WebhookOptions,
    WebhookTarget,
};
use client::{Credentials, KubeConfig};

/// The only version there is.
const VERSION: &str = "audit.k8s.io/v1";

/// Arguments about audit.
#[derive(clap::Args)]
#[command(next_help_heading = "Audit")]
pub(crate) struct Auditing {
    /// Path to the file that defines the audit policy configuration.
    #[arg(long)]
    audit_policy_file: Option<PathBuf>,
    #[command(flatten)]
    log: Log,
    #[command(flatten)]
    webhook: Webhook,
}

#[derive(clap::Args)]
struct Log {
    /// The file that events are logged to; - is the standard output.
    #[arg(long)]
    audit_log_path: Option<PathBuf>,
    /// Days for which old files are kept, by the time in their names; 0: for ever.
    #[arg(long, default_value_t = 366, value_name = "DAYS")]
    audit_log_maxage: i64,
    /// Old files that are kept; 0: all.
    #[arg(long, default_value_t = 100, value_name = "FILES")]
    audit_log_maxbackup: i64,
    /// Megabytes of a file before another is begun; 0: no limit.
    #[arg(long, default_value_t = 100, value_name = "MB")]
    audit_log_maxsize: i64,
    /// Whether old files are compressed.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    audit_log_compress: bool,
    /// What a line looks like: json or legacy.
    #[arg(long, default_value = "json")]
    audit_log_format: String,
    /// The version that events are written in.
    #[arg(long, default_value = VERSION)]
    audit_log_version: String,
    /// Whether answers wait for their events: batch, blocking or blocking-strict.
    #[arg(long, default_value = "blocking")]
    audit_log_mode: String,
    /// Events that may wait in batch mode; more are lost.
    #[arg(long, default_value_t = 10_000, value_name = "EVENTS")]
    audit_log_batch_buffer_size: i64,
    /// Events of a batch.
    #[arg(long, default_value_t = 1, value_name = "EVENTS")]
    audit_log_batch_max_size: i64,
    /// How long a batch waits to be full.
    #[arg(long, default_value = "0s", value_parser = super::duration)]
    audit_log_batch_max_wait: Duration,
    /// Whether the rate of batches is limited.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    audit_log_batch_throttle_enable: bool,
    /// Batches a second.
    #[arg(long, default_value_t = 0.0)]
    audit_log_batch_throttle_qps: f32,
    /// Batches at once after a pause.
    #[arg(long, default_value_t = 0)]
    audit_log_batch_throttle_burst: u32,
    /// Whether the size of events is limited.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    audit_log_truncate_enabled: bool,
    /// Bytes of a batch.
    #[arg(long, default_value_t = 10_485_760, value_name = "BYTES")]
    audit_log_truncate_max_batch_size: i64,
    /// Bytes of an event; larger ones lose their objects, and are lost if that is not enough.
    #[arg(long, default_value_t = 102_400, value_name = "BYTES")]
    audit_log_truncate_max_event_size: i64,
}

#[derive(clap::Args)]
struct Webhook {
    /// A kubeconfig file that says where events are posted.
    #[arg(long)]
    audit_webhook_config_file: Option<PathBuf>,
    /// The wait before what failed is tried again.
    #[arg(long, default_value = "10s", value_parser = super::duration,
        alias = "audit-webhook-batch-initial-backoff")]
    audit_webhook_initial_backoff: Duration,
    /// The version that events are posted in.
    #[arg(long, default_value = VERSION)]
    audit_webhook_version: String,
    /// Whether answers wait for their events: batch, blocking or blocking-strict.
    #[arg(long, default_value = "batch")]
    audit_webhook_mode: String,
    /// Events that may wait in batch mode; more are lost.
    #[arg(long, default_value_t = 10_000, value_name = "EVENTS")]
    audit_webhook_batch_buffer_size: i64,
    /// Events of a batch.
    #[arg(long, default_value_t = 400, value_name = "EVENTS")]
    audit_webhook_batch_max_size: i64,
    /// How long a batch waits to be full.
    #[arg(long, default_value = "30s", value_parser = super::duration)]
    audit_webhook_batch_max_wait: Duration,
    /// Whether the rate of batches is limited.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    audit_webhook_batch_throttle_enable: bool,
    /// Batches a second.
    #[arg(long, default_value_t = 10.0)]
    audit_webhook_batch_throttle_qps: f32,
    /// Batches at once after a pause.
    #[arg(long, default_value_t = 15)]
    audit_webhook_batch_throttle_burst: u32,
    /// Whether the size of events is limited.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    audit_webhook_truncate_enabled: bool,
    /// Bytes of a batch; larger ones are split.
    #[arg(long, default_value_t = 10_485_760, value_name = "BYTES")]
    audit_webhook_truncate_max_batch_size: i64,
    /// Bytes of an event; larger ones lose their objects, and are lost if that is not enough.
    #[arg(long, default_value_t = 102_400, value_name = "BYTES")]
    audit_webhook_truncate_max_event_size: i64,
}

impl Auditing {
    /// What was chosen.
    pub(crate) fn read(&self) -> anyhow::Result<Sinks> {
        Ok(Sinks {
            policy_file: self.audit_policy_file.clone(),
            log: self.log.read()?,
            webhook: self.webhook.read()?,
        })
    }
}

impl Log {
    fn read(&self) -> anyhow::Result<Option<LogOptions>> {
        let Some(path) = &self.audit_log_path else { return Ok(None) };
        for (flag, value) in [
            ("maxage", self.audit_log_maxage),
            ("maxbackup", self.audit_log_maxbackup),
            ("maxsize", self.audit_log_maxsize),
        ] {
            anyhow::ensure!(value >= 0, "--audit-log-{flag} {value} can't be a negative number");
        }
        check_version(&self.audit_log_version)?;
        let options = LogOptions {
            max_age_days: u32::try_from(self.audit_log_maxage).unwrap_or(0),
            max_backups: usize::try_from(self.audit_log_maxbackup).unwrap_or(0),
            max_bytes: u64::try_from(self.audit_log_maxsize).unwrap_or(0) << 20,
            compress: self.audit_log_compress,
            format: Format::parse(&self.audit_log_format)?,
            mode: Mode::parse("log", &self.audit_log_mode)?,
            batch: self.batch()?,
            truncate: self.truncate()?,
            ..LogOptions::new(path.clone())
        };
        options.check()?;
        Ok(Some(options))
    }

    fn batch(&self) -> Result<BatchOptions, OptionsError> {
        let numbers = Numbers { plugin: "log" };
        Ok(BatchOptions {
            buffer_size: numbers.count("batch", "buffer size", self.audit_log_batch_buffer_size)?,
            max_size: numbers.count("batch", "max batch size", self.audit_log_batch_max_size)?,
            max_wait: self.audit_log_batch_max_wait,
            throttle: self.audit_log_batch_throttle_enable,
            throttle_qps: self.audit_log_batch_throttle_qps,
            throttle_burst: self.audit_log_batch_throttle_burst,
        })
    }

    fn truncate(&self) -> Result<TruncateOptions, OptionsError> {
        let numbers = Numbers { plugin: "log" };
        Ok(TruncateOptions {
            enabled: self.audit_log_truncate_enabled,
            max_batch_size: numbers.count(
                "truncate",
                "max batch size",
                self.audit_log_truncate_max_batch_size,
            )?,
            max_event_size: numbers.count(
                "truncate",
                "max event size",
                self.audit_log_truncate_max_event_size,
            )?,
        })
    }
}

impl Webhook {
    fn read(&self) -> anyhow::Result<Option<WebhookOptions>> {
        let Some(path) = &self.audit_webhook_config_file else { return Ok(None) };
        check_version(&self.audit_webhook_version)?;
        let config = KubeConfig::load(path).context("initializing audit webhook")?;
        let options = WebhookOptions {
            initial_backoff: self.audit_webhook_initial_backoff,
            mode: Mode::parse("webhook", &self.audit_webhook_mode)?,
            batch: self.batch()?,
            truncate: self.truncate()?,
            ..WebhookOptions::new(target(config))
        };
        options.check()?;
        Ok(Some(options))
    }

    fn batch(&self) -> Result<BatchOptions, OptionsError> {
        let numbers = Numbers { plugin: "webhook" };
        Ok(BatchOptions {
            buffer_size: numbers.count(
                "batch",
                "buffer size",
                self.audit_webhook_batch_buffer_size,
            )?,
            max_size: numbers.count(
                "batch",
                "max batch size",
                self.audit_webhook_batch_max_size,
            )?,
            max_wait: self.audit_webhook_batch_max_wait,
            throttle: self.audit_webhook_batch_throttle_enable,
            throttle_qps: self.audit_webhook_batch_throttle_qps,
            throttle_burst: self.audit_webhook_batch_throttle_burst,
        })
    }

    fn truncate(&self) -> Result<TruncateOptions, OptionsError> {
        let numbers = Numbers { plugin: "webhook" };
        Ok(TruncateOptions {
            enabled: self.audit_webhook_truncate_enabled,
            max_batch_size: numbers.count(
                "truncate",
                "max batch size",
                self.audit_webhook_truncate_max_batch_size,
            )?,
            max_event_size: numbers.count(
                "truncate",
                "max event size",
                self.audit_webhook_truncate_max_event_size,
            )?,
        })
    }
}

fn target(config: KubeConfig) -> WebhookTarget {
    let mut target = WebhookTarget {
        url: config.server,
        certificate_authority: config.certificate_authority,
        tls_server_name: config.tls_server_name,
        ..WebhookTarget::default()
    };
    match config.credentials {
        Credentials::Certificate { certificate, key } => {
            target.certificate = Some((certificate, key));
        }
        Credentials::Token(token) => target.token = Some(token),
        Credentials::TokenFile(path) => target.token_file = Some(path),
        Credentials::Anonymous => {}
    }
    target
}

fn check_version(version: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        version == VERSION,
        "invalid group version, allowed versions are [{VERSION:?}]"
    );
    Ok(())
}

/// Numbers of things, of which there can be no fewer than none.
struct Numbers {
    plugin: &'static str,
}

impl Numbers {
    fn count(
        &self,
        of: &'static str,
        what: &'static str,
        value: i64,
    ) -> Result<usize, OptionsError> {
        usize::try_from(value).map_err(|_| OptionsError::NotPositive {
            of,
            plugin: self.plugin,
            what,
            value: value.to_string(),
        })
    }
}
