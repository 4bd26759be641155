//! What the server decides, apart from how it learns the facts and what it does about them. Pure, all of it.

pub(crate) mod place;
pub(crate) mod plan;
pub(crate) mod publish;
pub(crate) mod rows;
pub(crate) mod seed;
pub(crate) mod signed;
