//! What there is, in the words that every cluster tells it in.

use super::metastore::{Partition, View};
use crate::cluster::{PartitionInfo, TabletInfo, ViewInfo};
use crate::job::Volume;

pub(super) fn view_info(view: &View) -> ViewInfo {
    ViewInfo {
        name: view.name.clone(),
        definition: view.definition.clone(),
        created_at: view.created_at,
    }
}

pub(super) fn partition_info(partition: &Partition) -> PartitionInfo {
    PartitionInfo {
        id: partition.id,
        name: partition.name.clone(),
        bounds: partition.bounds.clone(),
        version: partition.version,
        version_at: partition.version_at,
        tablets: partition
            .tablets
            .iter()
            .map(|t| TabletInfo {
                id: t.id,
                bucket: t.bucket,
                backends: t.replicas.clone(),
                volume: Volume::of(&t.files),
                rows: t.files.iter().map(|f| f.rows).sum(),
            })
            .collect(),
    }
}
