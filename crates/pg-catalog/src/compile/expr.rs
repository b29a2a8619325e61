//! What an expression is compiled to, and what it is evaluated in.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use starkeep_error::Error;

use super::Eval;
use crate::context::Context;
use crate::value::{Value, ValueType};

/// What an expression looks at while it runs.
#[derive(Clone, Copy)]
pub struct Env<'a> {
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
pub struct Expr {
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
pub struct Held {
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
