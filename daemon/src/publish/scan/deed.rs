//! What one statement does, by its tokens. Pure.

use whimbrel_shared::sql::Token;

use super::{Spanned, Statement};

/// What a PRAGMA's value switches, where it is a switch.
pub fn switch(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" | "1" => Some(true),
        "off" | "no" | "false" | "0" => Some(false),
        _ => None,
    }
}

/// What one statement does to the schema or the rows. Names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// `CREATE TABLE`
    CreateTable {
        /// Its name.
        table: String,
        /// The tables that `AS SELECT` reads.
        from: Vec<String>,
        /// Whether it lives in the file with its rows.
        kind: TableKind,
    },
    /// `DROP TABLE`
    DropTable {
        /// Its name.
        table: String,
    },
    /// `ALTER TABLE … RENAME TO`
    RenameTable {
        /// Its name before.
        from: String,
        /// Its name after.
        to: String,
    },
    /// `ALTER TABLE … RENAME COLUMN`
    RenameColumn {
        /// The table.
        table: String,
        /// Its name before.
        from: String,
        /// Its name after.
        to: String,
    },
    /// `ALTER TABLE … DROP COLUMN`
    DropColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// `ALTER TABLE … ADD COLUMN`
    AddColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Why it only works while the table is empty, where it does.
        needs_empty: Option<NeedsEmpty>,
    },
    /// `CREATE UNIQUE INDEX`
    CreateUniqueIndex {
        /// The table.
        table: String,
    },
    /// `DROP INDEX`, `DROP TRIGGER` or `DROP VIEW`
    DropObject {
        /// `index`, `trigger` or `view`.
        kind: String,
        /// Its name.
        name: String,
    },
    /// `CREATE TRIGGER`
    CreateTrigger {
        /// Tables into which its body inserts without naming columns, and where.
        positional: Vec<(String, usize)>,
    },
    /// `INSERT` or `REPLACE`
    Insert {
        /// The table.
        into: String,
        /// The tables that its SELECT reads.
        from: Vec<String>,
    },
    /// `UPDATE`
    Update {
        /// The table.
        table: String,
        /// The columns that it sets.
        columns: Vec<String>,
        /// The tables that it reads besides its own.
        from: Vec<String>,
        /// Whether something limits it to a part of the rows.
        bounded: bool,
    },
    /// `DELETE`
    Delete {
        /// The table.
        table: String,
        /// Whether something limits it to a part of the rows.
        bounded: bool,
    },
    /// `PRAGMA name = value`, `PRAGMA name(value)` or `PRAGMA name`
    Pragma {
        /// Its name.
        name: String,
        /// Its value, in lower case.
        value: Option<String>,
    },
    /// `BEGIN`, `COMMIT`, `END`, `ROLLBACK`, `SAVEPOINT`, `RELEASE`: the word.
    Transaction(String),
    /// `ATTACH`, `DETACH`, `VACUUM`: the word.
    WholeFile(String),
    /// Anything else.
    Other,
}

/// What kind of table is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// One of the file's.
    Ordinary,
    /// Gone with the connection.
    Temporary,
    /// A virtual one: an index over rows that mostly live elsewhere.
    Virtual,
}

/// Why an added column needs an empty table (<https://www.sqlite.org/lang_altertable.html>, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeedsEmpty {
    /// NOT NULL, and no default but NULL.
    NotNull,
    /// A default that is computed: CURRENT_TIMESTAMP or an expression in parentheses.
    ComputedDefault,
}

/// What `statement` does.
pub fn deed(statement: &Statement) -> Deed {
    let mut words = Words { tokens: &statement.tokens, at: 0 };
    match words.next_word().as_str() {
        "create" => create(&mut words),
        "drop" => {
            let kind = words.next_word();
            words.skip(&["if", "exists"]);
            let name = words.name();
            match kind.as_str() {
                "table" => Deed::DropTable { table: name },
                "index" | "trigger" | "view" => Deed::DropObject { kind, name },
                _ => Deed::Other,
            }
        }
        "alter" => alter(&mut words),
        "with" | "insert" | "replace" | "update" | "delete" => rows(statement),
        "pragma" => {
            let name = words.name();
            let value: String = words
                .rest()
                .iter()
                .filter(|t| !matches!(t.token, Token::Mark('=' | '(' | ')')))
                .map(|t| t.token.text().trim_matches('\'').to_lowercase())
                .collect();
            Deed::Pragma { name, value: (!value.is_empty()).then_some(value) }
        }
        word @ ("begin" | "commit" | "end" | "rollback" | "savepoint" | "release") => Deed::Transaction(word.to_owned()),
        word @ ("attach" | "detach" | "vacuum") => Deed::WholeFile(word.to_owned()),
        _ => Deed::Other,
    }
}

struct Words<'a> {
    tokens: &'a [Spanned],
    at: usize,
}

impl<'a> Words<'a> {
    /// What has not been read yet.
    fn rest(&self) -> &'a [Spanned] {
        self.tokens.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|t| &t.token)
    }

    /// The next token's text, if it is a keyword or a name; else nothing, and it is passed.
    fn next_word(&mut self) -> String {
        let text = match self.peek() {
            Some(Token::Word(word)) => word.clone(),
            Some(Token::Quoted(_) | Token::Literal(_) | Token::Mark(_)) | None => String::new(),
        };
        self.at += 1;
        text
    }

    fn skip(&mut self, words: &[&str]) {
        while self.peek().is_some_and(|t| words.iter().any(|w| t.is(w))) {
            self.at += 1;
        }
    }

    fn has(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|t| t.is(word));
        self.at += usize::from(found);
        found
    }

    /// A name with the schema in front of it taken off. SQLite takes strings for names too.
    fn name(&mut self) -> String {
        let one = |token: Option<&Token>| match token {
            Some(Token::Word(text) | Token::Quoted(text)) => text.clone(),
            Some(Token::Literal(text)) => text.trim_matches('\'').to_lowercase(),
            Some(Token::Mark(_)) | None => String::new(),
        };
        let mut name = one(self.peek());
        self.at += 1;
        if self.peek() == Some(&Token::Mark('.')) {
            self.at += 1;
            name = one(self.peek());
            self.at += 1;
        }
        name
    }
}

fn create(words: &mut Words<'_>) -> Deed {
    let temporary = words.has("temp") || words.has("temporary");
    let unique = words.has("unique");
    let kind = words.next_word();
    match kind.as_str() {
        "virtual" => {
            words.skip(&["table", "if", "not", "exists"]);
            Deed::CreateTable { table: words.name(), from: Vec::new(), kind: TableKind::Virtual }
        }
        "table" => {
            words.skip(&["if", "not", "exists"]);
            let table = words.name();
            let from = if words.has("as") { sources(words.rest()) } else { Vec::new() };
            Deed::CreateTable { table, from, kind: if temporary { TableKind::Temporary } else { TableKind::Ordinary } }
        }
        "index" if unique => {
            words.skip(&["if", "not", "exists"]);
            words.name();
            words.skip(&["on"]);
            Deed::CreateUniqueIndex { table: words.name() }
        }
        "trigger" => Deed::CreateTrigger { positional: positional_inserts(words.tokens) },
        _ => Deed::Other,
    }
}

fn alter(words: &mut Words<'_>) -> Deed {
    words.skip(&["table"]);
    let table = words.name();
    match words.next_word().as_str() {
        "rename" => {
            if words.has("to") {
                return Deed::RenameTable { from: table, to: words.name() };
            }
            words.skip(&["column"]);
            let from = words.name();
            words.skip(&["to"]);
            Deed::RenameColumn { table, from, to: words.name() }
        }
        "drop" => {
            words.skip(&["column"]);
            Deed::DropColumn { table, column: words.name() }
        }
        "add" => {
            words.skip(&["column"]);
            let column = words.name();
            Deed::AddColumn { table, column, needs_empty: needs_empty(words.rest()) }
        }
        _ => Deed::Other,
    }
}

fn needs_empty(definition: &[Spanned]) -> Option<NeedsEmpty> {
    let mut depth = 0i32;
    let mut not_null = false;
    let mut default = None;
    let mut generated = false;
    for (index, spanned) in definition.iter().enumerate() {
        let next = definition.get(index + 1).map(|t| &t.token);
        match &spanned.token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => depth -= 1,
            token if depth == 0 && token.is("not") => {
                not_null |= next.is_some_and(|t| t.is("null"));
            }
            token if depth == 0 && token.is("default") => default = next,
            token if depth == 0 && (token.is("as") || token.is("generated")) => generated = true,
            _ => {}
        }
    }
    let computed =
        default.is_some_and(|t| *t == Token::Mark('(') || ["current_timestamp", "current_time", "current_date"].iter().any(|word| t.is(word)));
    // A literal in parentheses is constant for SQLite too.
    let literal = definition.iter().position(|t| t.token.is("default")).is_some_and(|at| is_parenthesised_literal(&definition[at + 1..]));
    if generated {
        None
    } else if computed && !literal {
        Some(NeedsEmpty::ComputedDefault)
    } else if not_null && default.is_none_or(|t| t.is("null")) {
        Some(NeedsEmpty::NotNull)
    } else {
        None
    }
}

/// Whether the parentheses hold no name and no call, but only literals and signs.
fn is_parenthesised_literal(tokens: &[Spanned]) -> bool {
    let mut depth = 0i32;
    for spanned in tokens {
        match &spanned.token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => depth -= 1,
            Token::Word(word) if !matches!(word.as_str(), "true" | "false" | "null") => return false,
            Token::Word(_) | Token::Quoted(_) | Token::Literal(_) | Token::Mark(_) => {}
        }
        if depth == 0 {
            break;
        }
    }
    true
}

/// INSERT, UPDATE and DELETE, also behind a WITH.
fn rows(statement: &Statement) -> Deed {
    let tokens = &statement.tokens;
    let outer = outer(tokens);
    let Some(verb) =
        outer.iter().position(|index| ["insert", "replace", "update", "delete", "select", "values"].iter().any(|verb| tokens[*index].token.is(verb)))
    else {
        return Deed::Other;
    };
    let start = outer[verb];
    let bounded = outer[verb..].iter().any(|index| ["where", "limit", "from"].iter().any(|word| tokens[*index].token.is(word)));
    let mut words = Words { tokens, at: start + 1 };
    match tokens[start].token.text().as_str() {
        "insert" | "replace" => {
            words.skip(&["or", "replace", "ignore", "abort", "fail", "rollback", "into"]);
            Deed::Insert { into: words.name(), from: sources(words.rest()) }
        }
        "update" => {
            words.skip(&["or", "replace", "ignore", "abort", "fail", "rollback"]);
            let table = words.name();
            let (columns, _) = assignments(tokens, &outer[verb..]);
            Deed::Update { table, columns, from: sources(tokens), bounded }
        }
        "delete" => {
            words.skip(&["from"]);
            let table = words.name();
            let limited = outer[verb..].iter().any(|index| ["where", "limit"].iter().any(|word| tokens[*index].token.is(word)));
            Deed::Delete { table, bounded: limited }
        }
        _ => Deed::Other,
    }
}

/// Indexes of the tokens outside parentheses.
fn outer(tokens: &[Spanned]) -> Vec<usize> {
    let mut depth = 0i32;
    let mut out = Vec::new();
    for (index, spanned) in tokens.iter().enumerate() {
        match spanned.token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => depth -= 1,
            Token::Mark(_) | Token::Word(_) | Token::Quoted(_) | Token::Literal(_) if depth == 0 => {
                out.push(index);
            }
            Token::Mark(_) | Token::Word(_) | Token::Quoted(_) | Token::Literal(_) => {}
        }
    }
    out
}

/// The columns that stand left of `=` between SET and WHERE (those of `(a, b) = …` too), and the names on the right.
fn assignments(tokens: &[Spanned], outer: &[usize]) -> (Vec<String>, Vec<String>) {
    let Some(set) = outer.iter().position(|i| tokens[*i].token.is("set")) else {
        return (Vec::new(), Vec::new());
    };
    let first = outer[set] + 1;
    let end = outer[set..]
        .iter()
        .find(|i| ["where", "from", "returning", "limit", "order"].iter().any(|w| tokens[**i].token.is(w)))
        .map_or(tokens.len(), |i| *i);
    let mut sides = (Vec::new(), Vec::new());
    let mut depth = 0i32;
    let mut left = true;
    for spanned in &tokens[first.min(end)..end] {
        match &spanned.token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => depth -= 1,
            Token::Mark('=') if depth == 0 => left = false,
            Token::Mark(',') if depth == 0 => left = true,
            token @ (Token::Word(_) | Token::Quoted(_)) if left => sides.0.push(token.text()),
            token @ (Token::Word(_) | Token::Quoted(_)) => sides.1.push(token.text()),
            Token::Literal(_) | Token::Mark(_) => {}
        }
    }
    sides
}

/// Whether `statement` puts what it finds in `table`'s `column` somewhere: the column is dropped later, and its values
/// are not lost. Generous: a statement that reads the column is taken to keep it.
pub fn keeps(statement: &Statement, table: &str, column: &str) -> bool {
    let tokens = &statement.tokens;
    let named = |token: &Token| matches!(token, Token::Word(w) | Token::Quoted(w) if w == column);
    match deed(statement) {
        Deed::Insert { from, .. } | Deed::CreateTable { from, .. } if from.iter().any(|t| t == table) => {
            let star = |pair: &[Spanned]| {
                pair[1].token == Token::Mark('*') && (pair[0].token.is("select") || matches!(pair[0].token, Token::Mark('.' | ',')))
            };
            tokens.iter().any(|t| named(&t.token)) || tokens.windows(2).any(star)
        }
        Deed::Update { table: own, .. } if own == table => {
            let outer = outer(tokens);
            assignments(tokens, &outer).1.iter().any(|name| name == column)
        }
        Deed::Update { from, .. } if from.iter().any(|t| t == table) => tokens.iter().any(|t| named(&t.token)),
        _ => false,
    }
}

/// The tables after FROM and JOIN, at any depth.
fn sources(tokens: &[Spanned]) -> Vec<String> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !(tokens[at].token.is("from") || tokens[at].token.is("join")) {
            at += 1;
            continue;
        }
        let mut words = Words { tokens, at: at + 1 };
        while let Some(Token::Word(_) | Token::Quoted(_) | Token::Literal(_)) = words.peek() {
            out.push(words.name());
            // `FROM a x, b`: an alias, then the next table.
            words.skip(&["as"]);
            if matches!(words.peek(), Some(Token::Quoted(_))) || matches!(words.peek(), Some(Token::Word(w)) if !is_clause(w)) {
                words.at += 1;
            }
            if words.peek() != Some(&Token::Mark(',')) {
                break;
            }
            words.at += 1;
        }
        at = words.at.max(at + 1);
    }
    out
}

fn is_clause(word: &str) -> bool {
    matches!(
        word,
        "where"
            | "join"
            | "left"
            | "right"
            | "full"
            | "inner"
            | "cross"
            | "natural"
            | "outer"
            | "on"
            | "using"
            | "group"
            | "order"
            | "limit"
            | "union"
            | "except"
            | "intersect"
            | "having"
            | "window"
            | "returning"
            | "indexed"
            | "not"
    )
}

/// Inserts without a list of columns, in a trigger's body: the table and the place.
fn positional_inserts(tokens: &[Spanned]) -> Vec<(String, usize)> {
    let mut out = Vec::new();
    for (index, spanned) in tokens.iter().enumerate() {
        if !spanned.token.is("into") {
            continue;
        }
        let mut words = Words { tokens, at: index + 1 };
        let table = words.name();
        let positional = words.peek().is_some_and(|t| t.is("values") || t.is("select"));
        if positional {
            out.push((table, spanned.at));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::statements, *};

    fn check(sql: &str, want: Deed) {
        let all = statements(sql);
        assert_eq!(all.len(), 1, "{sql}");
        assert_eq!(deed(&all[0]), want, "{sql}");
    }

    fn s(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn deeds_are_read_from_statements() {
        check("DROP TABLE IF EXISTS main.\"Notes\"", Deed::DropTable { table: s("notes") });
        check("ALTER TABLE `a` RENAME TO 'b'", Deed::RenameTable { from: s("a"), to: s("b") });
        check("ALTER TABLE a RENAME b TO c", Deed::RenameColumn { table: s("a"), from: s("b"), to: s("c") });
        check(
            "CREATE TABLE x AS SELECT * FROM a, b y JOIN (SELECT 1 FROM c) z",
            Deed::CreateTable { table: s("x"), from: vec![s("a"), s("b"), s("c")], kind: TableKind::Ordinary },
        );
        check(
            "WITH q AS (SELECT 1 FROM z WHERE 1) UPDATE OR IGNORE a SET b = (SELECT 1 WHERE 1), \"c\" = 2",
            Deed::Update { table: s("a"), columns: vec![s("b"), s("c")], from: vec![s("z")], bounded: false },
        );
        check("DELETE FROM a", Deed::Delete { table: s("a"), bounded: false });
        check("DELETE FROM a WHERE b", Deed::Delete { table: s("a"), bounded: true });
        check("INSERT OR IGNORE INTO new_a (x) SELECT y FROM a WHERE z", Deed::Insert { into: s("new_a"), from: vec![s("a")] });
        check("PRAGMA main.foreign_keys=OFF", Deed::Pragma { name: s("foreign_keys"), value: Some(s("off")) });
        check("PRAGMA foreign_key_check('a')", Deed::Pragma { name: s("foreign_key_check"), value: Some(s("a")) });
        check("BEGIN IMMEDIATE TRANSACTION", Deed::Transaction(s("begin")));
        check("vacuum", Deed::WholeFile(s("vacuum")));
    }

    #[test]
    fn a_column_that_needs_an_empty_table_is_found() {
        for (definition, want) in [
            ("b INT NOT NULL", Some(NeedsEmpty::NotNull)),
            ("b INT NOT NULL DEFAULT NULL", Some(NeedsEmpty::NotNull)),
            ("b INT NOT NULL DEFAULT 0", None),
            ("b INT NOT NULL DEFAULT (0)", None),
            ("b INT DEFAULT (-1)", None),
            ("b INT", None),
            ("b INT CHECK (b IS NOT NULL)", None),
            ("b TEXT DEFAULT CURRENT_TIMESTAMP", Some(NeedsEmpty::ComputedDefault)),
            ("b TEXT DEFAULT (datetime('now'))", Some(NeedsEmpty::ComputedDefault)),
            ("b INT GENERATED ALWAYS AS (a) NOT NULL", None),
        ] {
            let sql = format!("ALTER TABLE a ADD COLUMN {definition}");
            check(&sql, Deed::AddColumn { table: s("a"), column: s("b"), needs_empty: want });
        }
    }

    proptest! {
        #[test]
        fn any_sql_like_text_gives_deeds(words in prop::collection::vec(prop::sample::select(vec![
            "create", "table", "trigger", "begin", "end", ";", "(", ")", "'", "\"", "[", "--", "\n", "/*", "*/", "alter",
            "add", "column", "default", "not", "null", "update", "set", "=", ",", "with", "as", "from", "join", "x'", "pragma", ".", "ü", "drop",
        ]), 0..40)) {
            let text = words.join(" ");
            for statement in statements(&text) {
                deed(&statement);
            }
        }
    }
}
