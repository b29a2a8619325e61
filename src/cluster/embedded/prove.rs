//! Whether what was restored is what was backed up: every file is hashed and read, as a query would
//! read it.

use std::fs::File;
use std::path::{Path, PathBuf};

use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::EmbeddedCluster;
use crate::cluster::{GoOn, Proof};
use crate::error::Error;
use crate::job::{DataFile, Volume};
use crate::names::DatabaseName;
use crate::repository::transfer::blocking;
use crate::repository::{Manifest, hash_file};

/// A file of a table, where it is.
struct Restored {
    table: String,
    file: DataFile,
    path: Option<PathBuf>,
}

/// What is wrong with a file, if anything is.
fn difference(file: &DataFile, path: &Path) -> Result<Option<String>, Error> {
    let (sha256, length) = hash_file(path)?;
    if file.sha256 != sha256 {
        let found = format!("{length} bytes with SHA-256 {sha256}");
        return Ok(Some(format!("file {} has {found}", file.sha256)));
    }
    let opened = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let read = ParquetRecordBatchReaderBuilder::try_new(opened).and_then(|builder| {
        let mut rows = 0;
        for batch in builder.build()? {
            rows += batch?.num_rows() as u64;
        }
        Ok(rows)
    });
    Ok(match read {
        Ok(rows) if rows == file.rows => None,
        Ok(rows) => Some(format!(
            "file {} has {rows} rows instead of {}",
            file.sha256, file.rows
        )),
        Err(e) => Some(format!("file {} does not read: {e}", file.sha256)),
    })
}

impl EmbeddedCluster {
    /// Compares a database with the backup that it was restored from.
    pub(super) async fn prove_restored(
        &self,
        database: &DatabaseName,
        manifest: &Manifest,
        go_on: GoOn,
    ) -> Result<Proof, Error> {
        let (metastore, guard) = self.inner.frontend.read();
        let backends = &self.inner.backends;
        let (mut proof, mut files) = (Proof::default(), Vec::new());
        for table in &manifest.tables {
            let Some(here) = metastore.table(database.as_str(), table.name.as_str()) else {
                proof
                    .differences
                    .push(format!("table {} is missing", table.name));
                continue;
            };
            for partition in &table.partitions {
                let name = &partition.name;
                let is_whole = table.partitions.len() == 1 && here.partitions.len() == 1;
                let found = here.partitions.iter().find(|p| is_whole || p.name == *name);
                let Some(found) = found.filter(|p| p.tablets.len() == partition.tablets.len())
                else {
                    let what = format!("partition {name} of table {} is missing", table.name);
                    proof.differences.push(what);
                    continue;
                };
                for (tablet, planned) in found.tablets.iter().zip(&partition.tablets) {
                    files.extend(planned.files.iter().map(|file| Restored {
                        table: table.name.to_string(),
                        file: file.clone(),
                        path: backends.readable(&tablet.replicas, tablet.id, file),
                    }));
                }
            }
        }
        for view in &manifest.views {
            if metastore
                .view(database.as_str(), view.name.as_str())
                .is_none()
            {
                proof
                    .differences
                    .push(format!("view {} is missing", view.name));
            }
        }
        blocking(move || {
            let _kept = guard;
            for Restored { table, file, path } in files {
                go_on()?;
                let differs = match &path {
                    Some(path) => difference(&file, path)?,
                    None => Some(format!("file {} is missing", file.sha256)),
                };
                proof.volume.add(Volume::of([&file]));
                proof.rows += file.rows;
                if let Some(differs) = differs {
                    proof.differences.push(format!("table {table}: {differs}"));
                }
            }
            Ok(proof)
        })
        .await
    }
}
