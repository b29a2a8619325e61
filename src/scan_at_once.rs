//! How a table is scanned whose plan waits for nothing.

/// `TableProvider::scan` by a method `planned` that takes and gives the same.
///
/// `async_trait` would keep what the method is given in its future, and have the compiler prove for
/// each table anew that plans and expressions may go from thread to thread: a tenth of the time
/// that this crate takes to build.
macro_rules! scan_at_once {
    () => {
        fn scan<'t, 's, 'p, 'f, 'r>(
            &'t self,
            session: &'s dyn datafusion::catalog::Session,
            projection: Option<&'p Vec<usize>>,
            filters: &'f [datafusion::logical_expr::Expr],
            limit: Option<usize>,
        ) -> std::pin::Pin<
            Box<
                dyn Future<
                        Output = datafusion::common::Result<
                            std::sync::Arc<dyn datafusion::physical_plan::ExecutionPlan>,
                        >,
                    > + Send
                    + 'r,
            >,
        >
        where
            't: 'r,
            's: 'r,
            'p: 'r,
            'f: 'r,
            Self: 'r,
        {
            Box::pin(std::future::ready(
                self.planned(session, projection, filters, limit),
            ))
        }
    };
}

pub(crate) use scan_at_once;
