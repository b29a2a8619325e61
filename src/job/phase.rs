//! The phases of jobs, and their ends.

use serde::{Deserialize, Serialize};

macro_rules! phases {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// The phases of every kind of job, in their order. The names are StarRocks' own where it
        /// has them, and are stored.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Phase { $($(#[$doc])* #[serde(rename = $text)] $name,)* }

        impl Phase {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The phase of this name; one that no version up to 4.2 has is [`Self::Unknown`].
            pub fn parse(text: &str) -> Self {
                match text { $($text => Self::$name,)* _ => Self::Unknown }
            }
        }
    };
}

phases! {
    /// Waits for its turn.
    Queued => "QUEUED",
    /// Submitted.
    Pending => "PENDING",
    /// Of a later version of StarRocks.
    Unknown => "UNKNOWN",
    /// Tablets are being pinned, or made.
    Snapshoting => "SNAPSHOTING",
    /// Backup: the upload is being divided.
    UploadSnapshot => "UPLOAD_SNAPSHOT",
    /// Backup: files are on their way.
    Uploading => "UPLOADING",
    /// Restore: the download is being divided.
    Download => "DOWNLOAD",
    /// Restore: files are on their way.
    Downloading => "DOWNLOADING",
    /// Backup: metadata is written down.
    SaveMeta => "SAVE_META",
    /// Backup: metadata is on its way.
    UploadInfo => "UPLOAD_INFO",
    /// Restore: moving begins.
    Commit => "COMMIT",
    /// Restore: files are moved into their places.
    Committing => "COMMITTING",
    /// A repository's files are looked at.
    Verifying => "VERIFYING",
    /// Verify: backups are restored to see whether they can be.
    Restoring => "RESTORING",
    /// Prune: what may go is announced in the repository.
    Marking => "MARKING",
    /// Prune: those who have not seen that finish.
    Waiting => "WAITING",
    /// A snapshot's manifests are deleted, or files that none needs.
    Deleting => "DELETING",
    /// Prune: the announcement is taken away.
    Cleaning => "CLEANING",
    /// Done.
    Finished => "FINISHED",
    /// Not done.
    Cancelled => "CANCELLED",
    /// Another cluster would not have it.
    Refused => "REFUSED",
    /// Over, and nobody can tell how it ended.
    Lost => "LOST",
}

impl Phase {
    pub fn is_over(self) -> bool {
        self >= Self::Finished
    }

    /// Whether bytes are moved, which takes long.
    pub fn is_transfer(self) -> bool {
        matches!(self, Self::Uploading | Self::Downloading)
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a job was ended that could have gone on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelCause {
    User,
    Timeout,
    Dropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// What was asked for is done.
    Finished,
    /// It was ended from outside.
    Cancelled(CancelCause),
    /// An error has ended it.
    Failed,
    /// Another cluster would not have it.
    Refused,
    /// Nobody can tell what came of it.
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_names_do_not_change() {
        let names: Vec<_> = Phase::ALL
            .iter()
            .map(|p| serde_json::to_string(p).expect("serializes"))
            .collect();
        assert_eq!(
            names.join(" "),
            "\"QUEUED\" \"PENDING\" \"UNKNOWN\" \"SNAPSHOTING\" \"UPLOAD_SNAPSHOT\" \"UPLOADING\" \"DOWNLOAD\" \"DOWNLOADING\" \
             \"SAVE_META\" \"UPLOAD_INFO\" \"COMMIT\" \"COMMITTING\" \"VERIFYING\" \"RESTORING\" \"MARKING\" \"WAITING\" \"DELETING\" \"CLEANING\" \"FINISHED\" \"CANCELLED\" \"REFUSED\" \"LOST\""
        );
        for phase in Phase::ALL {
            assert_eq!(Phase::parse(phase.name()), *phase);
            assert_eq!(
                serde_json::from_str::<Phase>(&format!("\"{phase}\"")).expect("reads"),
                *phase
            );
        }
        assert_eq!(Phase::parse("CONVERTING"), Phase::Unknown);
        let causes = [
            CancelCause::User,
            CancelCause::Timeout,
            CancelCause::Dropped,
        ]
        .map(|c| serde_json::to_string(&c).expect("serializes"));
        assert_eq!(causes, ["\"user\"", "\"timeout\"", "\"dropped\""]);
    }
}
