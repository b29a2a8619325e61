//! What an expression is compiled to, and what it is evaluated in.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use starkeep_error::Error;

use super::context::Context;
use super::value::{Row, Value, ValueType};

pub(super) type Eval = Box<dyn Fn(&Env<'_>) -> Result<Value, Error>>;
pub(super) type Run = Box<dyn Fn(&Env<'_>) -> Result<Vec<Row>, Error>>;

/// What an expression looks at while it runs.
#[derive(Clone, Copy)]
pub(super) struct Env<'a> {
    pub row: &'a [Value],
    pub aggregates: &'a [Value],
    pub windows: &'a [Value],
    /// The current values of functions that answer sets.
    pub sets: &'a [Value],
    pub outer: Option<&'a Env<'a>>,
    pub context: &'a Context,
}

impl<'a> Env<'a> {
    pub fn top(context: &'a Context) -> Self {
        Self {
            row: &[],
            aggregates: &[],
            windows: &[],
            sets: &[],
            outer: None,
            context,
        }
    }

    pub fn row(&self, row: &'a [Value]) -> Self {
        Self { row, ..*self }
    }

    /// One query further inside.
    pub fn within(&'a self) -> Self {
        Self {
            outer: Some(self),
            ..Self::top(self.context)
        }
    }
}

/// A compiled expression.
pub(super) struct Expr {
    pub ty: ValueType,
    pub eval: Eval,
    /// A literal whose type its place decides.
    pub literal: Option<Arc<str>>,
    /// A parameter whose type its place decides.
    pub parameter: Option<usize>,
    /// A bare column of the innermost query.
    pub column: Option<usize>,
}

impl Expr {
    pub fn new(ty: ValueType, eval: impl Fn(&Env<'_>) -> Result<Value, Error> + 'static) -> Self {
        Self {
            ty,
            eval: Box::new(eval),
            literal: None,
            parameter: None,
            column: None,
        }
    }

    pub fn constant(ty: ValueType, value: Value) -> Self {
        Self::new(ty, move |_| Ok(value.clone()))
    }
}

/// An expression that is computed once and looked at several times: as often as its value is
/// wanted, its work is done once.
pub(super) struct Held {
    eval: Eval,
    value: Rc<RefCell<Value>>,
    ty: ValueType,
    literal: Option<Arc<str>>,
    parameter: Option<usize>,
}

impl Held {
    pub fn new(expr: Expr) -> Self {
        let Expr {
            ty,
            eval,
            literal,
            parameter,
            column: _,
        } = expr;
        Self {
            eval,
            value: Rc::new(RefCell::new(Value::Null)),
            ty,
            literal,
            parameter,
        }
    }

    /// An expression that reads the value.
    pub fn read(&self) -> Expr {
        let value = self.value.clone();
        let read = Expr::new(self.ty.clone(), move |_| Ok(value.borrow().clone()));
        Expr {
            literal: self.literal.clone(),
            parameter: self.parameter,
            ..read
        }
    }

    /// Computes the value for one row, before anything that reads it runs.
    pub fn fill(self) -> impl Fn(&Env<'_>) -> Result<(), Error> {
        move |env| {
            let value = (self.eval)(env)?;
            *self.value.borrow_mut() = value;
            Ok(())
        }
    }
}

/// A compiled query: its columns, and its rows as seen from the query around it.
pub(super) struct Plan {
    pub columns: Vec<(String, ValueType)>,
    pub run: Run,
}

impl Plan {
    /// Its rows, for an expression that looks at them and lets them go.
    pub fn passing(&self, env: &Env<'_>) -> Result<Vec<Row>, Error> {
        env.context.passing(|| (self.run)(env))
    }
}

/// `ROW(a, b)`, and `(a, b)`.
pub(super) fn row_of(items: Vec<Expr>) -> Expr {
    let fields = items
        .iter()
        .enumerate()
        .map(|(i, e)| (format!("f{}", i + 1), e.ty.clone()))
        .collect();
    let evals: Vec<Eval> = items.into_iter().map(|i| i.eval).collect();
    Expr::new(ValueType::record(fields), move |env| {
        env.context.made(Value::Record(
            evals.iter().map(|e| e(env)).collect::<Result<_, _>>()?,
        ))
    })
}

pub(super) fn negate(inner: Eval, negated: bool) -> Expr {
    Expr::new(ValueType::BOOL, move |env| {
        Ok(match inner(env)? {
            Value::Bool(b) => Value::Bool(b != negated),
            _ => Value::Null,
        })
    })
}

/// AND over three values.
pub(super) fn all_of(a: Eval, b: Eval) -> Eval {
    Box::new(move |env| {
        Ok(match a(env)? {
            Value::Bool(false) => Value::Bool(false),
            first => match (first, b(env)?) {
                (_, Value::Bool(false)) => Value::Bool(false),
                (Value::Bool(true), Value::Bool(true)) => Value::Bool(true),
                _ => Value::Null,
            },
        })
    })
}

pub(super) fn unsupported(what: impl std::fmt::Display) -> Error {
    Error::unsupported(format_args!("{what} in a query of the catalogs"))
}
