//! The sessions on one database, all on one snapshot, lent to whoever has a statement to run.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{ErrorKind, Result};
use crate::gate::Runs;
use crate::gate::sampling::Sample;
use crate::pg::{Address, Failure, Limits, Room, Session, Taken, terminate};
use crate::sql::Sql;

use super::cost::{self, Planned};
use super::timed;

/// The sessions on one database.
pub(super) struct Pool {
    address: Address,
    limits: Limits,
    backends: Vec<i32>,
    idle: Mutex<VecDeque<Session>>,
    free: Semaphore,
    /// How many have lost their connection.
    lost: AtomicUsize,
}

impl Pool {
    /// A first session and those that share its snapshot.
    pub(super) fn new(first: Session, further: Vec<Session>, limits: &Limits) -> Self {
        let address = first.address().clone();
        let idle: VecDeque<Session> = std::iter::once(first).chain(further).collect();
        Self {
            address,
            limits: *limits,
            backends: idle.iter().map(Session::backend).collect(),
            free: Semaphore::new(idle.len()),
            lost: AtomicUsize::new(0),
            idle: Mutex::new(idle),
        }
    }

    /// How many sessions there are.
    pub(super) fn size(&self) -> usize {
        self.backends.len()
    }

    /// The one row of a statement whose columns are all text, see [`Session::row`].
    pub(super) async fn row(
        &self,
        statement: &Sql,
        time: Option<Duration>,
    ) -> Result<Option<Vec<Option<String>>>, Failure> {
        let mut lent = self.take().await;
        let found = lent
            .within(time, async |session| session.row(statement).await)
            .await;
        lent.give_back(found)
    }

    /// The same as far as there is room for them.
    pub(super) async fn rows_within(
        &self,
        statement: &Sql,
        room: Room,
        time: Option<Duration>,
    ) -> Result<Taken, Failure> {
        let mut lent = self.take().await;
        let found = lent
            .within(time, async |session| {
                session.rows_within(statement, room).await
            })
            .await;
        lent.give_back(found)
    }

    /// The rows of a statement that has several parts, see [`Session::rows_by_part`].
    pub(super) async fn rows_by_part(
        &self,
        statement: &Sql,
        parts: &[(usize, Room)],
    ) -> Result<Vec<Taken>, Failure> {
        let mut lent = self.take().await;
        let found = lent.session.rows_by_part(statement, parts).await;
        lent.give_back(found)
    }

    /// The plan of a statement.
    pub(super) async fn explain(&self, statement: &Sql) -> Result<serde_json::Value, Failure> {
        let mut lent = self.take().await;
        let found = lent.session.explain(statement).await;
        lent.give_back(found)
    }

    /// The plan of a statement, and what it would read.
    pub(super) async fn planned(
        &self,
        statement: &Sql,
        sample: Option<Sample>,
    ) -> Result<Planned, Failure> {
        let mut lent = self.take().await;
        let found = cost::planned(&mut lent.session, statement, sample).await;
        let found = found.map_err(|error| Failure {
            error,
            position: None,
        });
        lent.give_back(found)
    }

    /// The times of a statement, see [`timed::measure`].
    pub(super) async fn timed(
        &self,
        statement: &Sql,
        runs: Runs,
        time: Option<Duration>,
    ) -> Result<Vec<Option<String>>, Failure> {
        let mut lent = self.take().await;
        let found = lent
            .within(time, async |session| {
                timed::measure(session, statement, runs).await
            })
            .await;
        lent.give_back(found)
    }

    /// The session that has waited longest, while nothing else is asked.
    pub(super) fn only(&mut self) -> Option<&mut Session> {
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner);
        idle.front_mut()
    }

    /// Ends every session; what they still do ends on the server, too.
    pub(super) async fn close(self) {
        let idle = std::mem::take(&mut *self.idle());
        if idle.len() + self.lost.load(Ordering::Relaxed) == self.size() {
            join_all(idle.into_iter().map(Session::close)).await;
        } else {
            drop(idle);
            terminate(&self.address, &self.backends, &self.limits).await;
        }
    }

    async fn take(&self) -> Lent<'_> {
        let permit = self.free.acquire().await;
        let permit = permit.expect("nobody closes the semaphore");
        // The one that has waited longest: none waits until the server ends it for that.
        let session = self.idle().pop_front();
        Lent {
            pool: self,
            session: session.expect("there are as many permits as sessions"),
            permit,
        }
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session in use; one that is dropped, or has lost its connection, never comes back.
struct Lent<'a> {
    pool: &'a Pool,
    session: Session,
    permit: SemaphorePermit<'a>,
}

impl Lent<'_> {
    /// Does something of which no statement may take longer than that.
    async fn within<T>(
        &mut self,
        time: Option<Duration>,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Some(time) = time else {
            return work(&mut self.session).await;
        };
        self.session.limit(time).await?;
        // What fails is rolled back, and the limit with it.
        let done = work(&mut self.session).await?;
        self.session.limit(self.pool.limits.statement).await?;
        Ok(done)
    }

    fn give_back<T>(self, found: Result<T, Failure>) -> Result<T, Failure> {
        let is_lost = found
            .as_ref()
            .is_err_and(|failure| failure.error.kind() == ErrorKind::ConnectionLost);
        if is_lost {
            self.permit.forget();
            self.pool.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            self.pool.idle().push_back(self.session);
        }
        found
    }
}
