//! Data files brought into a repository, and from it: looked for first where that costs less, put
//! right where what stands there is wrong, read again where they read wrong.

use std::path::PathBuf;
use std::time::Duration;

use super::check::Presence;
use super::layout::Layout;
use super::remote::Sent;
use super::transfer::{self, Copied, Over, PART_BYTES, PARTS_AFTER_BYTES};
use super::{ByteBudget, Repository, http, uploads};
use crate::error::{Error, ErrorKind};
use crate::job::DataFile;

/// The longest file that is put without a look at what is there.
const UNSEEN_BYTES_MAX: u64 = 256 << 10;
/// How long until an object that did not read right is read again, each time.
pub(super) const READ_AGAIN_AFTER: [Duration; 2] =
    [Duration::from_millis(300), Duration::from_secs(1)];

impl Repository {
    /// Brings a local file here, unless it is here already. `true`: its bytes were moved. The bytes
    /// are hashed on the way, and a file that is not what its name says is XX001 and leaves nothing
    /// behind. What stands in its place and is not what its name says is replaced by the good
    /// bytes.
    pub async fn upload(
        &self,
        file: &DataFile,
        from: &std::path::Path,
        budget: &ByteBudget,
    ) -> Result<bool, Error> {
        let layout = self.layout().await?;
        let path = layout.data(&file.sha256);
        if self.puts_unseen(file, layout) {
            self.pass(file.bytes).await?;
            match self.upload_file(&path, file, from, true, budget).await {
                Ok(Sent::New(e_tag)) => {
                    self.note_written(file, e_tag.as_deref()).await;
                    return Ok(true);
                }
                // Something stands there, and is looked at; so it is where the file itself is bad.
                Ok(Sent::Occupied(_)) => {}
                Err(e) if matches!(e.kind, ErrorKind::Corrupted | ErrorKind::MissingFile) => {}
                Err(e) => return Err(e),
            }
        }
        if self.local.is_none() {
            transfer::find_source(from).await?;
        }
        if let Some(target) = self.local_path(&path) {
            let (copied, source) = (file.clone(), from.to_owned());
            let coding = layout.sealing(&path)?;
            let copied = self.copy_new(copied, source, target, coding, budget);
            match copied.await? {
                Copied::New(found) => {
                    self.note_copied(file, &found, layout);
                    return Ok(true);
                }
                // What stands there is read only where there is something to compare it with.
                Copied::Occupied => transfer::find_source(from).await?,
                // Of an encrypted one the mark's copy may stand for it.
                Copied::Unmounted => self.ping().await.map_err(|e| {
                    e.of_kind(ErrorKind::Storage)
                        .prefixed("the repository cannot be reached")
                })?,
            }
        }
        let over = match self.presence(file, from).await? {
            Presence::Whole => return Ok(false),
            Presence::Missing => Over::Nothing,
            Presence::Wrong => {
                tracing::warn!(%path, "an object of the repository is damaged; it is put right");
                Over::Damaged
            }
        };
        let (moved, e_tag) = match self.local_path(&path) {
            Some(target) => {
                let (file, from) = (file.clone(), from.to_owned());
                let coding = layout.sealing(&path)?;
                let copied = self.copy_file(file, from, vec![target], over, coding, budget);
                (copied.await?, None)
            }
            None if self.goes_whole(file, budget) => {
                let is_new = over == Over::Nothing && self.puts_on_condition;
                self.pass(file.bytes).await?;
                match self.upload_file(&path, file, from, is_new, budget).await? {
                    Sent::New(e_tag) => (true, e_tag),
                    // Every conflict is told in the same words; only a whole object makes it
                    // another one's upload of the same file.
                    Sent::Occupied(error) => match self.presence(file, from).await? {
                        Presence::Whole => (false, None),
                        Presence::Missing | Presence::Wrong => return Err(error),
                    },
                }
            }
            None => {
                let upload = uploads::begin(&self.store, &path, self.uploads.clone()).await?;
                let sent = self.upload_in_parts(upload, &path, file, from, budget);
                (true, sent.await?)
            }
        };
        if moved {
            self.note_written(file, e_tag.as_deref()).await;
        }
        Ok(moved)
    }

    /// Whether a file is put in one piece. A put that fails leaves a file on HDFS, and an upload in
    /// parts does not.
    fn goes_whole(&self, file: &DataFile, budget: &ByteBudget) -> bool {
        let longest = match self.writes_beside {
            true => PART_BYTES as u64,
            false => PARTS_AFTER_BYTES,
        };
        file.bytes <= longest && budget.holds(file.bytes)
    }

    /// Whether a file is put without a look at what is there: its few bytes cost no more than the
    /// question, and the answer to the put tells whether there is one.
    fn puts_unseen(&self, file: &DataFile, layout: &Layout) -> bool {
        let sha256 = &file.sha256;
        self.local.is_none()
            && self.puts_on_condition
            && file.bytes <= UNSEEN_BYTES_MAX
            && !self.is_known(sha256)
            && !self.is_known_damaged(&layout.object_of(sha256))
    }

    /// Brings a data file to each of these local paths, skipping those that have it. `true`: bytes
    /// were moved. The bytes are hashed on the way, and none of the paths exists until they proved
    /// right. `check` is asked before the paths are looked at.
    pub async fn download(
        &self,
        file: &DataFile,
        to: Vec<PathBuf>,
        budget: &ByteBudget,
        check: impl FnOnce() -> Result<(), Error> + Send + 'static,
    ) -> Result<bool, Error> {
        let layout = self.layout().await?;
        let path = layout.data(&file.sha256);
        match self.local_path(&path) {
            Some(from) => {
                let file = file.clone();
                let coding = layout.opening(&path);
                let object = layout.object_of(&file.sha256);
                let copied = self
                    .copy_missing(file, from, to, coding, budget, check)
                    .await;
                // A disk that lies has another time of change no more than another length.
                if copied
                    .as_ref()
                    .is_err_and(|e| e.kind == ErrorKind::Corrupted)
                {
                    self.note_damaged(&object);
                }
                copied
            }
            None => {
                let bytes = file.bytes;
                let missing = transfer::blocking(move || {
                    check()?;
                    Ok(transfer::missing_of(to, bytes))
                });
                let missing = missing.await?;
                if missing.is_empty() {
                    return Ok(false);
                }
                let read =
                    self.read_again(|| self.download_file(&path, file, missing.clone(), budget));
                let read = read.await;
                if read.as_ref().is_err_and(|e| e.kind == ErrorKind::Corrupted) {
                    self.note_damaged(&layout.object_of(&file.sha256));
                }
                read
            }
        }
    }

    /// Reads from a store; what was damaged or missing is asked for again before that is believed:
    /// one answer may be cut short, and one server of many may not know an object yet.
    pub(super) async fn read_again<T, F>(&self, read: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut pauses = READ_AGAIN_AFTER.iter();
        loop {
            let error = match read().await {
                Err(e) if matches!(e.kind, ErrorKind::Corrupted | ErrorKind::MissingFile) => e,
                done => return done,
            };
            let Some(pause) = pauses.next().filter(|_| self.local.is_none()) else {
                return Err(error);
            };
            tracing::warn!(%error, "an object did not read right; it is read again");
            http::pause(*pause).await;
        }
    }
}
