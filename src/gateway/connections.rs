//! Which connections there are, and how their statements are ended from outside.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Every connection that has logged in.
#[derive(Debug, Default)]
pub struct Connections {
    last_pid: AtomicI32,
    open: Mutex<HashMap<i32, Open>>,
}

#[derive(Debug)]
struct Open {
    /// What a CancelRequest must know.
    secret: Vec<u8>,
    statement: CancellationToken,
    connection: CancellationToken,
}

impl Connections {
    /// A number for a new connection.
    pub fn next_pid(&self) -> i32 {
        self.last_pid
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1)
            .max(1)
    }

    /// Makes a connection known; the token is cancelled when it is to end.
    pub fn register(&self, pid: i32, secret: Vec<u8>) -> CancellationToken {
        let connection = CancellationToken::new();
        let open = Open {
            secret,
            statement: CancellationToken::new(),
            connection: connection.clone(),
        };
        self.open.lock().insert(pid, open);
        connection
    }

    /// A fresh token for the next statement: a late cancel hits nothing.
    pub fn arm(&self, pid: i32) -> CancellationToken {
        let token = CancellationToken::new();
        if let Some(open) = self.open.lock().get_mut(&pid) {
            open.statement = token.clone();
        }
        token
    }

    pub fn forget(&self, pid: i32) {
        self.open.lock().remove(&pid);
    }

    /// Cancels the running statement of a connection, if the secret is right. Nothing is answered
    /// either way.
    pub fn cancel(&self, pid: i32, secret: &[u8]) {
        if let Some(open) = self.open.lock().get(&pid) {
            // The comparison takes the same time wherever the first difference is.
            let known = &open.secret;
            let same = known.len() == secret.len()
                && known.iter().zip(secret).fold(0, |d, (a, b)| d | (a ^ b)) == 0;
            if same {
                open.statement.cancel();
            }
        }
    }

    /// Cancels the running statement of a connection; whoever asks has the right to.
    pub fn cancel_statement(&self, pid: i32) {
        if let Some(open) = self.open.lock().get(&pid) {
            open.statement.cancel();
        }
    }

    /// Ends a connection, its statement with it.
    pub fn terminate(&self, pid: i32) {
        if let Some(open) = self.open.lock().get(&pid) {
            open.connection.cancel();
        }
    }

    /// Ends these connections.
    pub fn terminate_those(&self, pids: impl IntoIterator<Item = i32>) {
        pids.into_iter().for_each(|pid| self.terminate(pid));
    }

    /// Ends every connection.
    pub fn terminate_all(&self) {
        self.open
            .lock()
            .values()
            .for_each(|open| open.connection.cancel());
    }
}
