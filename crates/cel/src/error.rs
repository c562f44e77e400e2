//! Why an evaluation has no result.

use std::sync::Arc;

/// Why an evaluation has no result. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// A map or object does not have this key.
    #[error("no such key: {0}")]
    NoSuchKey(Arc<str>),
    /// No function takes values of these types.
    #[error("no such overload")]
    NoSuchOverload,
    /// A variable was not given.
    #[error("no such attribute(s): {0}")]
    NoSuchAttribute(Arc<str>),
    /// Integer division by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// Integer remainder by zero.
    #[error("modulus by zero")]
    ModulusByZero,
    /// A number does not fit.
    #[error("integer overflow")]
    IntegerOverflow,
    /// An unsigned number does not fit.
    #[error("unsigned integer overflow")]
    UnsignedOverflow,
    /// A timestamp does not fit.
    #[error("timestamp overflow")]
    TimestampOverflow,
    /// A duration does not fit.
    #[error("duration overflow")]
    DurationOverflow,
    /// Past the end of a list.
    #[error("index out of bounds: {0}")]
    IndexOutOfBounds(i64),
    /// What a function says about its arguments.
    #[error("{0}")]
    Failed(Arc<str>),
    /// It cost more than one evaluation may.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimitExceeded,
    /// The caller does not wait any longer.
    #[error("operation interrupted")]
    Interrupted,
}

impl EvaluationError {
    pub(crate) fn failed(text: impl Into<Arc<str>>) -> Self {
        Self::Failed(text.into())
    }

    /// Whether the evaluation as a whole is over, so that `||` and `&&` do not absorb it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::CostLimitExceeded | Self::Interrupted)
    }
}

/// What an operation comes to.
pub(crate) type Outcome<T> = Result<T, EvaluationError>;
