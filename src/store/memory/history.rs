//! Jobs as they are read, in memory.

use super::*;

#[async_trait]
impl History for MemoryStore {
    async fn verifications(
        &self,
        jobs: RangeInclusive<JobId>,
    ) -> Result<Vec<VerificationRow>, Error> {
        let content = self.0.lock();
        let mut rows: Vec<_> = content
            .results(&jobs)
            .flat_map(|(backups, _)| backups)
            .collect();
        let place = |row: &VerificationRow| {
            (
                row.job_id,
                row.snapshot.clone(),
                row.backup_timestamp.clone(),
            )
        };
        rows.sort_by_key(place);
        Ok(rows)
    }

    async fn damaged_objects(&self) -> Result<DamagedObjects, Error> {
        let damaged = self.findings(ALL_JOBS).await?.into_iter();
        let damaged = damaged.filter(|finding| finding.kind == FindingKind::Damaged.name());
        Ok(damaged
            .map(|f| (f.cluster, f.repository, f.object))
            .collect())
    }

    async fn findings(&self, jobs: RangeInclusive<JobId>) -> Result<Vec<FindingRow>, Error> {
        let content = self.0.lock();
        let rows = content.results(&jobs).flat_map(|(_, findings)| findings);
        Ok(rows.collect())
    }

    async fn unmirrored(&self, after: JobId, limit: usize) -> Result<Vec<JobId>, Error> {
        let content = self.0.lock();
        let waiting = content.jobs.iter().filter(|(id, entry)| match entry {
            Entry::Admitted {
                now,
                buried,
                mirrored: false,
                ..
            } => {
                let is_over = buried.is_some() || now.is_over();
                **id > after && is_over && now.spec.work.repository().is_some()
            }
            _ => false,
        });
        Ok(waiting.map(|(id, _)| *id).take(limit).collect())
    }

    async fn set_mirrored(&self, id: JobId) -> Result<(), Error> {
        if let Some(Entry::Admitted { mirrored, .. }) = self.0.lock().jobs.get_mut(&id) {
            *mirrored = true;
        }
        Ok(())
    }

    async fn import(&self, from: &RepositoryName, jobs: Vec<JobJournal>) -> Result<u64, Error> {
        let mut content = self.0.lock();
        let mut new = Vec::new();
        let mut id = content.next_id();
        for journal in jobs {
            let uid = &journal.spec.uid;
            let is_known = |entry: &Entry| match entry {
                Entry::Admitted { first, .. } => first.spec.uid == *uid,
                Entry::Refused(_) => false,
            };
            if content.jobs.values().any(is_known) || new.iter().any(|(_, e)| is_known(e)) {
                continue;
            }
            let delta = journal.replay(id).map_err(|e| does_not_add_up(id, &e))?;
            let entry = Entry::Admitted {
                first: Box::new(Job::new(id, journal.spec, journal.created_at)),
                events: event_rows(&delta)?,
                tasks: delta
                    .tasks
                    .iter()
                    .map(|row| (row.task_id, row.clone()))
                    .collect(),
                now: Box::new(delta.job),
                buried: None,
                imported_from: Some(from.clone()),
                mirrored: true,
            };
            new.push((id, entry));
            id = JobId(id.0 + 1);
        }
        let count = new.len() as u64;
        content.jobs.extend(new);
        Ok(count)
    }

    async fn newest_job(&self) -> Result<Option<Timestamp>, Error> {
        let rows = self.jobs(&JobFilter::default()).await?.into_iter();
        let own = rows.filter(|row| row.imported_from.is_none());
        Ok(own.max_by_key(|row| row.job_id).map(|row| row.created_at))
    }

    async fn last_job(&self) -> Result<Option<JobId>, Error> {
        Ok(self.0.lock().jobs.keys().next_back().copied())
    }

    async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>, Error> {
        let content = self.0.lock();
        let rows = content.jobs.values().map(|entry| match entry {
            Entry::Admitted {
                buried: Some(row), ..
            } => (**row).clone(),
            Entry::Admitted {
                now, imported_from, ..
            } => JobRow {
                imported_from: imported_from.as_ref().map(ToString::to_string),
                ..JobRow::of(now)
            },
            Entry::Refused(row) => (**row).clone(),
        });
        let wanted = |row: &JobRow| {
            filter.job_id.is_none_or(|id| id == row.job_id)
                && filter
                    .cluster
                    .as_ref()
                    .is_none_or(|cluster| *cluster == row.cluster)
                && filter.db_name.as_ref().is_none_or(|db| *db == row.db_name)
                && filter
                    .snapshot
                    .as_ref()
                    .is_none_or(|label| *label == row.snapshot)
                && filter.kind.is_none_or(|kind| kind == row.kind)
                && filter.status.is_none_or(|status| status == row.status)
                && filter
                    .repository
                    .as_ref()
                    .is_none_or(|name| row.repository.as_ref() == Some(name))
                && !(filter.own && row.imported_from.is_some())
                && filter.ids.contains(&row.job_id)
                && filter.created.contains(&row.created_at)
        };
        let place = |at: Timestamp, id: JobId| match filter.order {
            JobOrder::Id => (Timestamp(0), id),
            JobOrder::CreatedAt => (at, id),
        };
        let rows = rows.filter(wanted);
        if !filter.latest {
            let mut rows: Vec<_> = rows.collect();
            rows.sort_by_key(|row| place(row.created_at, row.job_id));
            if filter.descending {
                rows.reverse();
            }
            if let Some((at, id)) = filter.after {
                let beyond = if filter.descending {
                    Ordering::Less
                } else {
                    Ordering::Greater
                };
                rows.retain(|row| place(row.created_at, row.job_id).cmp(&place(at, id)) == beyond);
            }
            rows.truncate(filter.limit.unwrap_or(usize::MAX));
            return Ok(rows);
        }
        let never_sent: std::collections::BTreeSet<JobId> = content
            .admitted()
            .filter(|job| !job.is_shown())
            .map(|job| job.id)
            .collect();
        let rows =
            rows.filter(|row| !never_sent.contains(&row.job_id) && row.imported_from.is_none());
        let had_their_turn =
            rows.filter(|row| row.state.is_some_and(|phase| phase != Phase::Queued));
        // What is under way is later than what has ended.
        let under_way: std::collections::BTreeSet<JobId> = content
            .admitted()
            .filter(|job| !job.is_settled())
            .map(|job| job.id)
            .collect();
        let mut had_their_turn: Vec<JobRow> = had_their_turn.collect();
        had_their_turn.sort_by_key(|row| (under_way.contains(&row.job_id), row.job_id));
        let latest: BTreeMap<String, JobRow> = had_their_turn
            .into_iter()
            .map(|row| (row.db_name.clone(), row))
            .collect();
        let mut rows: Vec<_> = latest.into_values().collect();
        rows.sort_by_key(|row| row.job_id);
        Ok(rows)
    }

    async fn tasks(&self, jobs: RangeInclusive<JobId>) -> Result<Vec<TaskRow>, Error> {
        let content = self.0.lock();
        let of_job = |(id, entry): (&JobId, &Entry)| match entry {
            Entry::Admitted { tasks, .. } if jobs.contains(id) => tasks.values().cloned().collect(),
            _ => Vec::new(),
        };
        Ok(content.jobs.iter().flat_map(of_job).collect())
    }

    async fn events(&self, jobs: RangeInclusive<JobId>) -> Result<Vec<EventRow>, Error> {
        let content = self.0.lock();
        let wanted = content.jobs.range(jobs);
        let events = wanted.flat_map(|(_, entry)| match entry {
            Entry::Admitted { events, .. } => events.as_slice(),
            Entry::Refused(_) => &[],
        });
        Ok(events.map(|(_, row)| row.clone()).collect())
    }
}
