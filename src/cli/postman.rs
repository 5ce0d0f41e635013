//! A Postman collection and environment (v2.1) for one service key.

use super::token::ServiceKey;
use super::{Failure, Outcome, output};
use std::path::Path;

pub fn write(_config: &Path, key: &Path, out: &Path) -> Outcome {
    let _ = (ServiceKey::read(key)?, out);
    output::print("")?;
    Err(Failure::text("not written"))
}
