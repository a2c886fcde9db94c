//! What a failed request means: not done, or perhaps done.

use std::fmt::Display;

use scylla::errors::{DbError, ExecutionError, RequestAttemptError};

use crate::rows::{Error, Table};

/// A failed read, or a statement that could not be prepared: nothing was done.
pub(super) fn unavailable(table: Table, why: impl Display) -> Error {
    Error::Unavailable { table: table.name, why: why.to_string() }
}

pub(super) fn corrupt(table: Table, why: impl Display) -> Error {
    Error::Corrupt { table: table.name, why: why.to_string() }
}

/// A failed write: unavailable when it certainly was not done and never will be, else unknown.
pub(super) fn write_error(table: Table, error: &ExecutionError) -> Error {
    let why = error.to_string();
    if certainly_not_done(error) {
        Error::Unavailable { table: table.name, why }
    } else {
        Error::Unknown { table: table.name, why }
    }
}

fn certainly_not_done(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::BadQuery(_)
        | ExecutionError::EmptyPlan
        | ExecutionError::PrepareError(_)
        | ExecutionError::ConnectionPoolError(_) => true,
        ExecutionError::LastAttemptError(attempt) => match attempt {
            RequestAttemptError::SerializationError(_)
            | RequestAttemptError::CqlRequestSerialization(_)
            | RequestAttemptError::UnableToAllocStreamId
            | RequestAttemptError::RepreparedIdChanged { .. }
            | RequestAttemptError::RepreparedIdMissingInBatch => true,
            RequestAttemptError::DbError(error, message) => refused(error, message),
            // A broken connection may have carried it; an answer that cannot be read is an answer.
            _ => false,
        },
        _ => false,
    }
}

/// Whether the server says that it did not begin.
fn refused(error: &DbError, message: &str) -> bool {
    match error {
        DbError::SyntaxError
        | DbError::Invalid
        | DbError::AlreadyExists { .. }
        | DbError::AuthenticationError
        | DbError::Unauthorized
        | DbError::ConfigError
        | DbError::IsBootstrapping
        | DbError::Unprepared { .. }
        | DbError::ProtocolError => true,
        // Too few servers alive for the vote: not begun. Too few for the commit that follows: voted, and finished by
        // whoever contacts the partition next.
        DbError::Unavailable { consistency, .. } => consistency.is_serial(),
        // Overloaded with requests: not begun. With hints: while spreading what was decided.
        DbError::Overloaded => !message.to_ascii_lowercase().contains("hint"),
        DbError::RateLimitReached { rejected_by_coordinator, .. } => *rejected_by_coordinator,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use scylla::errors::WriteType;
    use scylla::statement::Consistency;

    use super::*;
    use crate::rows::Kind;

    const T: Table = Table { name: "t", kind: Kind::Guarded };

    fn answered(error: DbError, message: &str) -> ExecutionError {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, message.to_owned()))
    }

    #[test]
    fn a_write_that_may_be_done_is_unknown_and_one_that_is_not_is_unavailable() {
        let cas = DbError::WriteTimeout {
            consistency: Consistency::LocalSerial,
            received: 1,
            required: 2,
            write_type: WriteType::Cas,
        };
        let too_few = |consistency| DbError::Unavailable { consistency, required: 2, alive: 1 };
        let unknown = [
            ExecutionError::RequestTimeout(Duration::from_secs(2)),
            answered(cas, ""),
            answered(DbError::ServerError, ""),
            answered(too_few(Consistency::LocalQuorum), ""),
            answered(DbError::Overloaded, "Too many in flight hints: 1024"),
        ];
        for error in unknown {
            assert!(matches!(write_error(T, &error), Error::Unknown { .. }), "{error}");
        }
        let not_done = [
            ExecutionError::EmptyPlan,
            answered(DbError::Invalid, "Batch too large"),
            answered(DbError::Unauthorized, ""),
            answered(too_few(Consistency::LocalSerial), ""),
            answered(DbError::Overloaded, "Query timed out before it could start"),
        ];
        for error in not_done {
            assert!(matches!(write_error(T, &error), Error::Unavailable { .. }), "{error}");
        }
    }
}
