//! What stops a statement from outside: a cancellation, its time, or a client that is gone.

use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::failure::{End, Failure};
use crate::error::{Error, ErrorKind};
use crate::session::Session;

/// When a statement that begins now must have ended.
pub(super) fn deadline(session: &Session) -> Option<tokio::time::Instant> {
    session
        .statement_timeout()
        .map(|t| tokio::time::Instant::now() + t)
}

pub(super) fn cancelled(by_user: bool) -> Error {
    let why = if by_user {
        "user request"
    } else {
        "statement timeout"
    };
    Error::new(
        ErrorKind::Cancelled,
        format!("canceling statement due to {why}"),
    )
}

/// What stops a statement from outside.
pub struct Guard {
    pub(super) token: CancellationToken,
    pub(super) deadline: Option<tokio::time::Instant>,
}

impl Guard {
    /// Waits until the statement is cancelled or its time is over, and says which.
    pub async fn stopped(&self) -> Error {
        let time_over = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.token.cancelled() => cancelled(true),
            () = time_over => cancelled(false),
        }
    }

    /// Runs a future unless the statement is cancelled, its time is over, or the client is gone.
    pub async fn run<T>(
        &self,
        socket: &TcpStream,
        work: impl Future<Output = T>,
    ) -> Result<T, Stop> {
        tokio::select! {
            biased;
            error = self.stopped() => Err(Stop::Cancelled(error)),
            out = work => Ok(out),
            () = gone(socket) => Err(Stop::Gone),
        }
    }
}

pub enum Stop {
    Cancelled(Error),
    Gone,
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Cancelled(error) => Self::Statement(error),
            Stop::Gone => Self::Connection(End::Closed),
        }
    }
}

/// How often a client that has sent more is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Waits until the client hangs up.
pub(super) async fn gone(socket: &TcpStream) {
    match socket.peek(&mut [0]).await {
        Ok(0) | Err(_) => {}
        // It has sent more: the next statements, or its good-bye. Nothing wakes whoever waits for
        // the end after that.
        Ok(_) => {
            let mut looks = tokio::time::interval(LOOK_INTERVAL);
            while socket
                .ready(Interest::READABLE)
                .await
                .is_ok_and(|ready| !ready.is_read_closed())
            {
                looks.tick().await;
            }
        }
    }
}
