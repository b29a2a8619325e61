//! Why a job ended without what it was for.

use serde::{Deserialize, Serialize};

use super::StatusCode;
use crate::error::{Error, ErrorKind};
use crate::job::{CancelCause, End, Phase};

/// Why a job was cancelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// StarRocks' code.
    pub code: StatusCode,
    /// What kind of error, for `error_code`.
    pub kind: ErrorKind,
    pub message: String,
    /// More facts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Who ended the job, if it was not an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<CancelCause>,
}

impl Failure {
    /// A failure in these words.
    pub fn new(code: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            code,
            kind,
            message: message.into(),
            detail: None,
            hint: None,
            cause: None,
        }
    }

    /// The end of a job that it has ended.
    pub fn end(&self) -> End {
        self.cause.map_or(End::Failed, End::Cancelled)
    }

    pub fn error(&self) -> Error {
        let message = if self.message.is_empty() {
            "timeout"
        } else {
            &self.message
        };
        let mut error = Error::new(self.kind, message);
        error.detail.clone_from(&self.detail);
        error.hint.clone_from(&self.hint);
        error
    }

    pub fn user_cancelled(during: Option<Phase>) -> Self {
        let message = match during {
            Some(phase) => format!("user cancelled, current state: {phase}"),
            None => "user cancelled".into(),
        };
        Self {
            cause: Some(CancelCause::User),
            ..Self::new(StatusCode::CommonError, ErrorKind::Cancelled, message)
        }
    }

    /// The job's time was over; carries the last error seen, if any.
    pub fn timeout(last_error: Option<&str>) -> Self {
        let failure = Self::new(
            StatusCode::Timeout,
            ErrorKind::Cancelled,
            last_error.unwrap_or_default(),
        );
        Self {
            cause: Some(CancelCause::Timeout),
            ..failure
        }
    }

    /// An error with all that it says.
    pub fn verbatim(error: &Error) -> Self {
        let failure = Self::new(StatusCode::CommonError, error.kind, error.message.as_str());
        Self {
            detail: error.detail.clone(),
            hint: error.hint.clone(),
            ..failure
        }
    }

    /// An error that no repetition would mend.
    pub fn of(error: &Error) -> Self {
        let code = match error.kind {
            ErrorKind::Corrupted => StatusCode::BadFile,
            ErrorKind::WrongObjectType => StatusCode::BadReplace,
            ErrorKind::MissingFile
            | ErrorKind::UndefinedTable
            | ErrorKind::UndefinedSchema
            | ErrorKind::UndefinedObject => StatusCode::NotFound,
            _ => StatusCode::CommonError,
        };
        if error.is_of_cluster() {
            // A cluster's words are kept as they are.
            return Self {
                detail: error.detail.clone(),
                ..Self::new(code, error.kind, error.message.as_str())
            };
        }
        Self::new(code, error.kind, error.to_string())
    }

    /// `[CODE, msg: text]`, as SHOW prints it.
    pub fn status(&self) -> String {
        format!("[{}, msg: {}]", self.code.name(), self.message)
    }
}
