//! How much of the stack is kept for what recurses without looking.

/// What must be left of the stack where sqlparser and DataFusion go one level deeper, or else a new
/// piece is taken. What a level calls in turn looks at no such bound: copying, comparing and
/// dropping an expression recurse through all of it, and the 128 KiB of the library were not enough
/// for that in a build without optimisation.
const STACK_LEFT: usize = 1 << 20;

/// Lets deep statements have the stack that they need. For the whole process.
pub fn keep_stack_left() {
    recursive::set_minimum_stack_size(STACK_LEFT);
}
