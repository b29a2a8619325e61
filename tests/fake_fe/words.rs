//! What a frontend says when it refuses, with the codes of its version.

use super::model::Model;
use super::wire::Reply;

fn error(code: u16, sqlstate: &str, message: String) -> Reply {
    Reply::Error {
        code,
        sqlstate: sqlstate.to_owned(),
        message,
    }
}

impl Model {
    /// From 3.3 on an error has a code and an SQLSTATE of its own.
    fn has_codes(&self) -> bool {
        self.at_least(3, 3)
    }

    /// An error of its own, in the version's wrapping.
    fn coded(&self, code: u16, sqlstate: &str, message: &str) -> Reply {
        if self.has_codes() {
            return error(code, sqlstate, message.to_owned());
        }
        let prefix = if self.at_least(2, 5) {
            "Unexpected exception: "
        } else {
            ""
        };
        error(1064, "HY000", format!("{prefix}{message}"))
    }

    /// A statement that was understood was not carried out.
    pub fn refused(&self, message: &str) -> Reply {
        self.coded(5064, "42000", message)
    }

    /// The same where even a new version has no code for it.
    pub fn failed(&self, message: &str) -> Reply {
        self.coded(1064, "HY000", message)
    }

    /// A statement that names what is not there.
    pub fn analysis(&self, message: &str) -> Reply {
        let text = if self.at_least(3, 1) {
            format!("Getting analyzing error. Detail message: {message}.")
        } else {
            message.to_owned()
        };
        error(1064, "HY000", text)
    }

    /// The same with a code of its own.
    pub fn analysis_coded(&self, code: u16, sqlstate: &str, message: &str) -> Reply {
        match self.analysis(message) {
            Reply::Error { message, .. } if self.has_codes() => error(code, sqlstate, message),
            other => other,
        }
    }

    pub fn analysis_common(&self, message: &str) -> Reply {
        self.analysis_coded(5064, "42000", message)
    }

    pub fn unknown_database(&self, name: &str) -> Reply {
        self.analysis_coded(5501, "3F000", &format!("Unknown database '{name}'"))
    }

    /// The same where it is found out late.
    pub fn unknown_database_bare(&self, name: &str) -> Reply {
        let message = format!("Unknown database '{name}'");
        if self.has_codes() {
            return error(5501, "3F000", message);
        }
        error(1064, "HY000", message)
    }

    pub fn unknown_table(&self, name: &str) -> Reply {
        self.coded(5502, "42602", &format!("Unknown table '{name}'"))
    }

    /// What a real one says of where and of what it would rather see is left out.
    pub fn syntax(&self) -> Reply {
        let message = "Getting syntax error at line 1, column 0. Detail message: Unexpected input.";
        error(1064, "HY000", message.to_owned())
    }

    /// What is read and has no sense.
    pub fn senseless(&self, message: &str) -> Reply {
        let text = format!("Getting syntax error. Detail message: {message}.");
        error(1064, "HY000", text)
    }

    pub fn denial(&self) -> Reply {
        let code = if self.has_codes() { 5203 } else { 1252 };
        let message = "Access denied; you need (at least one of) the REPOSITORY privilege(s) on SYSTEM for this operation.";
        error(code, "42000", message.to_owned())
    }

    pub fn no_leader(&self) -> Reply {
        let message = "java.net.ConnectException: Connection refused";
        error(1064, "HY000", message.to_owned())
    }
}
