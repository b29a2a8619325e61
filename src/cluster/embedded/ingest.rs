//! Writing rows: checked, routed to tablets, written as Parquet to every replica, synced, then made
//! visible by one transaction.
//!
//! The writer works on a thread of its own, fed by a channel. When the statement is dropped the
//! channel closes without its end mark, and the writer removes what it wrote; nothing becomes
//! visible before the transaction of the metastore.

mod route;

use std::collections::HashMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{cast, take_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, GzipLevel, ZstdLevel};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::KeyValue;
use datafusion::parquet::file::properties::WriterProperties;
use futures::StreamExt;
use ring::digest::{Context, SHA256};
use tempfile::{NamedTempFile, TempPath};
use tokio::sync::mpsc;

use self::route::Router;
use super::be::Backends;
use super::fe::NewFile;
use super::metastore::{Partition, Table};
use crate::env::Env;
use crate::error::{Error, ErrorKind};
use crate::job::DataFile;
use crate::names::*;
use crate::repository::transfer::{
    Coding, Over, SyncedDirs, blocking, copy_hashed, finish, partial_in,
};
use crate::schema::{Codec, TableSchema};

/// Buffered rows of all open files together, before the largest are written out.
const BUFFERED_BYTES_MAX: usize = 48 << 20;
/// Rows per row group: enough to compress well, few enough to prune.
const ROW_GROUP_ROWS: usize = 128 * 1024;
/// What the rows of a group are together at most, decoded, unless one row is more: who reads
/// decodes up to a group at a time, however small it was packed.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// Batches between the query and the writer.
const CHANNEL_BATCHES: usize = 2;

/// Files that no version shows yet. Whoever lets go of them without having kept them has them
/// removed: a statement that is cancelled, or whose client is gone, leaves none behind.
#[derive(Debug)]
pub(super) struct NewFiles {
    files: Vec<NewFile>,
    backends: Arc<Backends>,
}

impl NewFiles {
    pub fn none(backends: &Arc<Backends>) -> Self {
        Self {
            files: Vec::new(),
            backends: backends.clone(),
        }
    }

    pub fn list(&self) -> &[NewFile] {
        &self.files
    }

    pub fn take_over(&mut self, mut other: Self) {
        self.files.append(&mut other.files);
    }

    /// The metastore has them now, or may have them.
    pub fn keep(&mut self) {
        self.files.clear();
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        discard(&self.backends, &self.files);
    }
}

/// What the rows of an INSERT turned into.
#[derive(Debug)]
pub(super) struct Written {
    pub rows: u64,
    pub files: NewFiles,
    /// The partitions that got rows, with the versions that were seen.
    pub partitions: Vec<(PartitionId, i64)>,
}

/// Whether rows get a fresh place in the order, or bring theirs along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sequence {
    Assign,
    Keep,
}

/// Writes all rows of a stream into new files of the table; they are durable, but no version shows
/// them yet.
pub(super) async fn write_rows(
    table: &Arc<Table>,
    backends: &Arc<Backends>,
    env: &Env,
    sequence: Sequence,
    mut rows: SendableRecordBatchStream,
) -> Result<Written, Error> {
    let (sender, receiver) = mpsc::channel::<Option<RecordBatch>>(CHANNEL_BATCHES);
    let writer = TableWriter::new(table.clone(), backends.clone(), env, sequence)?;
    let work = tokio::spawn(blocking(move || writer.run(receiver)));
    let mut failed = None;
    while let Some(batch) = rows.next().await {
        match batch {
            // A closed channel means that the writer has failed; its own error is the one to tell.
            Ok(batch) => {
                if sender.send(Some(batch)).await.is_err() {
                    break;
                }
            }
            Err(e) => {
                failed = Some(crate::cluster::embedded::query_error(e));
                break;
            }
        }
    }
    if failed.is_none() {
        // The end mark; without it the writer undoes its work.
        let _ = sender.send(None).await;
    }
    drop(sender);
    let written = work
        .await
        .map_err(|e| Error::internal(format!("the writer died: {e}")))?;
    match failed {
        Some(error) => Err(error),
        None => written,
    }
}

fn codec_of(schema: &TableSchema) -> Result<Compression, Error> {
    let unknown = |e: ParquetError| Error::internal(e.to_string());
    // A table of an older version may have one that nothing knows.
    let codec = schema.compression().ok().flatten();
    Ok(match codec.unwrap_or_default() {
        Codec::Lz4 => Compression::LZ4_RAW,
        Codec::Snappy => Compression::SNAPPY,
        Codec::Zlib => Compression::GZIP(GzipLevel::default()),
        Codec::Zstd(level) => Compression::ZSTD(ZstdLevel::try_new(level).map_err(unknown)?),
    })
}

struct TableWriter {
    table: Arc<Table>,
    backends: Arc<Backends>,
    sequence: Sequence,
    schema: SchemaRef,
    router: Router,
    /// By partition and bucket.
    open: HashMap<(usize, usize), TabletFile>,
    properties: WriterProperties,
    rows: u64,
}

impl TableWriter {
    fn new(
        table: Arc<Table>,
        backends: Arc<Backends>,
        env: &Env,
        sequence: Sequence,
    ) -> Result<Self, Error> {
        // The mark makes equal rows written twice two files: a file's name is its content.
        let mark = KeyValue::new("starkeep.write_id".into(), env.uuid());
        let properties = WriterProperties::builder()
            .set_compression(codec_of(&table.schema)?)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_key_value_metadata(Some(vec![mark]))
            .build();
        let router = Router::new(&table)?;
        let schema = table.schema.file_arrow();
        Ok(Self {
            table,
            backends,
            sequence,
            schema,
            router,
            open: HashMap::new(),
            properties,
            rows: 0,
        })
    }

    fn run(mut self, mut batches: mpsc::Receiver<Option<RecordBatch>>) -> Result<Written, Error> {
        loop {
            match batches.blocking_recv() {
                Some(Some(batch)) => self.write(&batch)?,
                Some(None) => return self.close(),
                // Dropped half-way: the partial files go with `self`.
                None => {
                    return Err(Error::new(
                        ErrorKind::Cancelled,
                        "the statement was cancelled",
                    ));
                }
            }
        }
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = self.conform(batch)?;
        for (partition, bucket, indices) in self.router.route(&batch, &self.table)? {
            let part =
                take_record_batch(&batch, &UInt32Array::from(indices)).map_err(arrow_error)?;
            let part = self.with_sequence(part, partition)?;
            let file = match self.open.entry((partition, bucket)) {
                std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
                std::collections::hash_map::Entry::Vacant(slot) => {
                    let tablet = &self.table.partitions[partition].tablets[bucket];
                    slot.insert(TabletFile::create(
                        tablet.id,
                        &tablet.replicas,
                        &self.backends,
                        &self.schema,
                        &self.properties,
                    )?)
                }
            };
            file.write(&part)?;
        }
        self.rows += batch.num_rows() as u64;
        self.bound_memory()
    }

    /// Writes out the largest buffers when all together hold too much.
    fn bound_memory(&mut self) -> Result<(), Error> {
        let mut held: usize = self
            .open
            .values()
            .map(|f| f.writer.in_progress_size())
            .sum();
        while held > BUFFERED_BYTES_MAX {
            let Some(largest) = self
                .open
                .values_mut()
                .max_by_key(|f| f.writer.in_progress_size())
            else {
                break;
            };
            held -= largest.writer.in_progress_size();
            largest.end_group()?;
        }
        Ok(())
    }

    /// The batch with the table's exact types; NOT NULL and lengths are checked here.
    fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        let width = match self.sequence {
            Sequence::Assign => self.table.schema.columns.len(),
            Sequence::Keep => self.schema.fields().len(),
        };
        if batch.num_columns() != width {
            return Err(Error::internal(format!(
                "{} columns arrived for {width}",
                batch.num_columns()
            )));
        }
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(width);
        for (i, array) in batch.columns().iter().enumerate() {
            let field = self.schema.field(i);
            let array = if array.data_type() == field.data_type() {
                array.clone()
            } else {
                cast(array, field.data_type()).map_err(arrow_error)?
            };
            if !field.is_nullable() && array.null_count() > 0 {
                return Err(Error::new(
                    ErrorKind::NotNull,
                    format!(
                        "null value in column \"{}\" of table \"{}\" violates not-null constraint",
                        field.name(),
                        self.table.name
                    ),
                ));
            }
            if let Some(max) = self
                .table
                .schema
                .columns
                .get(i)
                .and_then(|c| c.column_type.max_bytes())
            {
                check_lengths(&array, max, field.name())?;
            }
            columns.push(array);
        }
        let schema = self
            .schema
            .project(&(0..width).collect::<Vec<_>>())
            .map_err(arrow_error)?;
        RecordBatch::try_new(schema.into(), columns).map_err(arrow_error)
    }

    fn with_sequence(&self, batch: RecordBatch, partition: usize) -> Result<RecordBatch, Error> {
        if self.sequence == Sequence::Keep || !self.table.schema.has_sequence() {
            return Ok(batch);
        }
        let version = self.table.partitions[partition].version + 1;
        let first = self.rows as i64;
        let last = first + batch.num_rows() as i64;
        if last >= 1 << 32 || version >= 1 << 31 {
            return Err(
                Error::new(ErrorKind::LimitExceeded, "too many rows in one statement")
                    .hint("Load in several statements."),
            );
        }
        // Rows of one batch keep their order, and routing keeps it within a tablet, so counting
        // from the batch's start is enough.
        let sequence = Int64Array::from_iter_values((first..last).map(|row| (version << 32) | row));
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(sequence));
        RecordBatch::try_new(self.schema.clone(), columns).map_err(arrow_error)
    }

    fn close(self) -> Result<Written, Error> {
        let mut written = Written {
            rows: self.rows,
            files: NewFiles::none(&self.backends),
            partitions: Vec::new(),
        };
        let mut open: Vec<_> = self.open.into_iter().collect();
        open.sort_by_key(|(place, _)| *place);
        for ((partition, _), file) in open {
            let seen = (
                self.table.partitions[partition].id,
                self.table.partitions[partition].version,
            );
            if written.partitions.last() != Some(&seen) {
                written.partitions.push(seen);
            }
            match file.close() {
                Ok(new) => written.files.files.push(new),
                Err(e) => return Err(e),
            }
        }
        Ok(written)
    }
}

/// Removes files that no version will show. What cannot be removed now, the sweep at the next start
/// removes.
fn discard(backends: &Backends, files: &[NewFile]) {
    for new in files {
        if let Err(e) = backends.remove(new.tablet, Some(&new.file.sha256)) {
            tracing::warn!(error = %e, "could not remove a file that is not needed");
        }
    }
}

fn arrow_error(error: datafusion::arrow::error::ArrowError) -> Error {
    super::query_error(error.into())
}

fn parquet_error(error: datafusion::parquet::errors::ParquetError) -> Error {
    use std::error::Error as _;
    let io = error
        .source()
        .and_then(|s| s.downcast_ref::<std::io::Error>())
        .map(std::io::Error::kind);
    let kind = match io {
        Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) => {
            ErrorKind::DiskFull
        }
        _ if error.to_string().contains("No space left") => ErrorKind::DiskFull,
        _ => ErrorKind::Storage,
    };
    Error::new(kind, format!("could not write a data file: {error}"))
}

fn check_lengths(array: &ArrayRef, max: u32, column: &str) -> Result<(), Error> {
    if let Some(list) = array.as_list_opt::<i32>() {
        return check_lengths(list.values(), max, column);
    }
    let Some(strings) = array.as_string_opt::<i32>() else {
        return Ok(());
    };
    let too_long = strings.iter().flatten().find(|s| s.len() > max as usize);
    match too_long {
        Some(value) => Err(Error::new(
            ErrorKind::TooLong,
            format!("value too long for column \"{column}\" of {max} bytes"),
        )
        .detail(format!("the value has {} bytes", value.len()))),
        None => Ok(()),
    }
}

/// The size of these rows in memory, without what else is in the buffers that they are a part of.
fn decoded_bytes(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(decoded_size).sum()
}

fn decoded_size(array: &ArrayRef) -> usize {
    // A slice of lists keeps the items of all of them.
    if let Some(lists) = array.as_list_opt::<i32>() {
        let offsets = lists.value_offsets();
        let (from, to) = (offsets[0] as usize, offsets[lists.len()] as usize);
        return size_of_val(offsets) + decoded_size(&lists.values().slice(from, to - from));
    }
    array
        .to_data()
        .get_slice_memory_size()
        .unwrap_or_else(|_| array.get_array_memory_size())
}

/// A Parquet file being written on the first replica's backend.
struct TabletFile {
    tablet: TabletId,
    writer: ArrowWriter<HashingWriter>,
    rows: u64,
    /// The decoded size of what is in the group that is being written.
    group_bytes: usize,
    /// The directories of all replicas that are alive, the first being written.
    dirs: Vec<PathBuf>,
}

/// A file that is open only while it is written to: an INSERT has one for each tablet until its
/// end, and the operating system's descriptors are few.
struct HashingWriter {
    path: TempPath,
    buffer: Vec<u8>,
    context: Context,
    length: u64,
}

/// What is written at a time.
const WRITE_BYTES: usize = 256 << 10;

impl HashingWriter {
    fn opened(&self) -> std::io::Result<std::fs::File> {
        std::fs::OpenOptions::new().append(true).open(&self.path)
    }
}

impl std::io::Write for HashingWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.context.update(bytes);
        self.length += bytes.len() as u64;
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if !self.buffer.is_empty() {
            self.opened()?.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl TabletFile {
    fn create(
        tablet: TabletId,
        replicas: &[BackendId],
        backends: &Backends,
        schema: &SchemaRef,
        properties: &WriterProperties,
    ) -> Result<Self, Error> {
        let alive = backends.alive_of(replicas.iter().copied())?;
        // StarRocks' own rule: a majority of the replicas must take a write.
        if alive.len() * 2 <= replicas.len() {
            return Err(Error::new(
                ErrorKind::Storage,
                format!(
                    "tablet {tablet} has only {} of {} replicas alive, and a write needs a majority",
                    alive.len(),
                    replicas.len()
                ),
            )
            .hint("See SHOW BACKENDS."));
        }
        let dirs: Vec<PathBuf> = alive
            .iter()
            .map(|b| backends.tablet_dir(*b, tablet).expect("a backend of ours"))
            .collect();
        let path = partial_in(&dirs[0])?.into_temp_path();
        let sink = HashingWriter {
            path,
            buffer: Vec::new(),
            context: Context::new(&SHA256),
            length: 0,
        };
        let writer = ArrowWriter::try_new(sink, schema.clone(), Some(properties.clone()))
            .map_err(parquet_error)?;
        Ok(Self {
            tablet,
            writer,
            rows: 0,
            group_bytes: 0,
            dirs,
        })
    }

    fn write(&mut self, rows: &RecordBatch) -> Result<(), Error> {
        let bytes = decoded_bytes(rows);
        if bytes > ROW_GROUP_BYTES && rows.num_rows() > 1 {
            let half = rows.num_rows() / 2;
            self.write(&rows.slice(0, half))?;
            return self.write(&rows.slice(half, rows.num_rows() - half));
        }
        if self.group_bytes > 0 && self.group_bytes + bytes > ROW_GROUP_BYTES {
            self.end_group()?;
        }
        self.writer.write(rows).map_err(parquet_error)?;
        self.group_bytes += bytes;
        self.rows += rows.num_rows() as u64;
        Ok(())
    }

    fn end_group(&mut self) -> Result<(), Error> {
        self.group_bytes = 0;
        self.writer.flush().map_err(parquet_error)
    }

    fn close(self) -> Result<NewFile, Error> {
        let mut sink = self.writer.into_inner().map_err(parquet_error)?;
        sink.flush()
            .map_err(|e| Error::io("write", &self.dirs[0], e))?;
        let file = sink
            .opened()
            .map_err(|e| Error::io("open", &self.dirs[0], e))?;
        let HashingWriter {
            path,
            context,
            length,
            ..
        } = sink;
        let sha256 = Sha256::of_digest(context.finish().as_ref())?;
        let partial = NamedTempFile::from_parts(file, path);
        let file = DataFile {
            sha256: sha256.clone(),
            bytes: length,
            rows: self.rows,
        };
        let paths: Vec<PathBuf> = self
            .dirs
            .iter()
            .map(|d| d.join(format!("{sha256}.parquet")))
            .collect();
        finish(partial, &paths[0])?;
        copy_hashed(
            &file,
            &paths[0],
            paths[1..].to_vec(),
            Over::Nothing,
            Coding::Plain,
            &SyncedDirs::default(),
            |_| Ok(()),
        )?;
        Ok(NewFile {
            tablet: self.tablet,
            file,
        })
    }
}

/// The partitions of a table that have data.
pub(super) fn filled(table: &Table) -> impl Iterator<Item = &Arc<Partition>> {
    table.partitions.iter().filter(|p| p.volume().files > 0)
}
