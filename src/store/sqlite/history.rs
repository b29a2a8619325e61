//! Jobs as they are read: by an index, or in pages.

use super::*;

/// The latest jobs of a cluster and kind, found by their index, whatever else there is: of one
/// database, or of each. What is under way is later than what has ended, whichever was admitted
/// first: a job may wait for one that somebody else submits after it.
pub(super) const LATEST_OF_ONE: &str = "SELECT row, course FROM jobs WHERE job_id = coalesce(
        (SELECT max(job_id) FROM jobs WHERE settled = 0 AND cluster = ?1 AND db_name = ?3 AND kind = ?2
         AND phase <> '' AND phase <> 'QUEUED'),
        (SELECT max(job_id) FROM jobs WHERE cluster = ?1 AND kind = ?2 AND db_name = ?3
         AND phase <> '' AND phase <> 'QUEUED'))";
pub(super) const LATEST_OF_EACH: &str = "WITH RECURSIVE named (name) AS (
        SELECT min(db_name) FROM jobs WHERE cluster = ?1 AND kind = ?2 AND phase <> '' AND phase <> 'QUEUED'
        UNION ALL
        SELECT (SELECT min(db_name) FROM jobs WHERE cluster = ?1 AND kind = ?2 AND db_name > name AND phase <> '' AND phase <> 'QUEUED')
        FROM named WHERE name IS NOT NULL
    )
    SELECT row, course FROM named JOIN jobs ON job_id = coalesce(
        (SELECT max(job_id) FROM jobs WHERE settled = 0 AND cluster = ?1 AND db_name = name AND kind = ?2
         AND phase <> '' AND phase <> 'QUEUED'),
        (SELECT max(job_id) FROM jobs WHERE cluster = ?1 AND kind = ?2 AND db_name = name AND phase <> '' AND phase <> 'QUEUED')
    ) ORDER BY job_id";

fn rows_of(
    select: &mut rusqlite::CachedStatement<'_>,
    values: Vec<Value>,
) -> Result<Vec<JobRow>, Error> {
    let mut rows = select.query(params_from_iter(values)).map_err(sql_error)?;
    let mut out = Vec::new();
    while let Some(row) = rows.next().map_err(sql_error)? {
        let text = row
            .get_ref(0)
            .and_then(|r| Ok(r.as_str()?))
            .map_err(sql_error)?;
        let course = row
            .get_ref(1)
            .and_then(|r| Ok(r.as_str_or_null()?))
            .map_err(sql_error)?;
        out.push(stored_row(text, course)?);
    }
    Ok(out)
}

fn read_latest(connection: &Connection, filter: JobFilter) -> Result<Vec<JobRow>, Error> {
    let (Some(cluster), Some(kind)) = (filter.cluster, filter.kind) else {
        return Err(Error::internal(
            "the latest jobs of no cluster or kind were asked for",
        ));
    };
    let query = if filter.db_name.is_some() {
        LATEST_OF_ONE
    } else {
        LATEST_OF_EACH
    };
    let kind = kind.name().to_owned();
    let values = [Some(cluster), Some(kind), filter.db_name]
        .into_iter()
        .flatten()
        .map(Value::from)
        .collect();
    rows_of(
        &mut connection.prepare_cached(query).map_err(sql_error)?,
        values,
    )
}

/// The text of a query for jobs, and its values.
pub(super) fn select_jobs(filter: JobFilter) -> (String, Vec<Value>) {
    // Only what is asked for stands in the text: "?1 IS NULL OR …" would keep SQLite from its
    // indexes.
    let job = filter.job_id.map(|j| Value::from(j.0));
    let texts = [
        filter.db_name,
        filter.kind.map(|kind| kind.name().to_owned()),
        filter.status.map(|status| status.name().to_owned()),
        filter.cluster,
        filter.snapshot,
        filter.repository,
    ];
    let texts = texts.into_iter().map(|t| t.map(Value::from));
    let columns = [
        "job_id",
        "db_name",
        "kind",
        "status",
        "cluster",
        "snapshot",
        "repository",
    ];
    let wanted = columns
        .into_iter()
        .zip([job].into_iter().chain(texts))
        .filter_map(|(column, v)| Some((column, v?)));
    let (columns, values): (Vec<_>, Vec<_>) = wanted.unzip();
    let mut conditions: Vec<_> = columns
        .iter()
        .map(|column| format!("{column} = ?"))
        .collect();
    let mut values: Vec<Value> = values;
    let bounds = [
        ("job_id >= ?", filter.ids.from.map(|id| id.0)),
        ("job_id <= ?", filter.ids.to.map(|id| id.0)),
        ("created_at >= ?", filter.created.from.map(|at| at.0)),
        ("created_at <= ?", filter.created.to.map(|at| at.0)),
    ];
    for (condition, bound) in bounds {
        if let Some(bound) = bound {
            conditions.push(condition.to_owned());
            values.push(bound.into());
        }
    }
    if filter.own {
        conditions.push("imported IS NULL".to_owned());
    }
    let (direction, beyond) = if filter.descending {
        ("DESC", "<")
    } else {
        ("ASC", ">")
    };
    let order = match filter.order {
        JobOrder::Id => format!("job_id {direction}"),
        JobOrder::CreatedAt => format!("created_at {direction}, job_id {direction}"),
    };
    if let Some((created_at, id)) = filter.after {
        match filter.order {
            JobOrder::Id => conditions.push(format!("job_id {beyond} ?")),
            JobOrder::CreatedAt => {
                conditions.push(format!("(created_at, job_id) {beyond} (?, ?)"));
                values.push(created_at.0.into());
            }
        }
        values.push(id.0.into());
    }
    let conditions = if conditions.is_empty() {
        String::new()
    } else {
        format!("WHERE {}", conditions.join(" AND "))
    };
    let limit = filter
        .limit
        .map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
    values.push(limit.into());
    let text = format!("SELECT row, course FROM jobs {conditions} ORDER BY {order} LIMIT ?");
    (text, values)
}

pub(super) fn read_jobs(connection: &Connection, filter: JobFilter) -> Result<Vec<JobRow>, Error> {
    if filter.latest {
        return read_latest(connection, filter);
    }
    let (text, values) = select_jobs(filter);
    let mut select = connection.prepare_cached(&text).map_err(sql_error)?;
    rows_of(&mut select, values)
}
