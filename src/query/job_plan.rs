//! The answer of EXPLAIN for a statement that starts a job: one row a step.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use super::system::{SystemRow, system_row};
use crate::error::Error;

/// What a step means for the statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Severity {
    #[default]
    Info,
    /// It goes on all the same.
    Warning,
    /// It would be refused, or could not go on.
    Error,
}

/// Something that a job would do, or that would keep it from being done.
#[derive(Clone, Debug, Default)]
pub struct JobStep {
    /// The phase of the job, or `check`.
    pub step: &'static str,
    pub object: String,
    pub action: &'static str,
    pub partitions: Option<u64>,
    pub tablets: Option<u64>,
    pub files: Option<u64>,
    pub bytes: Option<u64>,
    /// Of those, the bytes that have to be moved.
    pub new_bytes: Option<u64>,
    pub estimated_seconds: Option<f64>,
    pub severity: Severity,
    pub note: String,
}

system_row! {
    pub JobPlanRow in "explain" {
        step: Text,
        object: Text,
        action: Text,
        partitions: Int,
        tablets: Int,
        files: Int,
        bytes: Int,
        new_bytes: Int,
        estimated_seconds: Double,
        severity: Text,
        note: Text,
    }
}

pub fn job_plan_schema() -> SchemaRef {
    JobPlanRow::schema()
}

pub fn job_plan(steps: &[JobStep]) -> Result<RecordBatch, Error> {
    let rows: Vec<_> = steps
        .iter()
        .map(|step| JobPlanRow {
            step: step.step.into(),
            object: step.object.clone().into(),
            action: step.action.into(),
            partitions: step.partitions.into(),
            tablets: step.tablets.into(),
            files: step.files.into(),
            bytes: step.bytes.into(),
            new_bytes: step.new_bytes.into(),
            estimated_seconds: step.estimated_seconds.into(),
            severity: match step.severity {
                Severity::Info => "INFO",
                Severity::Warning => "WARNING",
                Severity::Error => "ERROR",
            }
            .into(),
            note: step.note.clone().into(),
        })
        .collect();
    JobPlanRow::batch(&rows)
}
