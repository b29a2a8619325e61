import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.postgresql.PGConnection;
import org.postgresql.PGResultSetMetaData;
import org.postgresql.PGStatement;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PSQLException;

/** The JDBC driver. PGHOST, PGPORT, PGUSER and PGDATABASE say where. */
public class ClientSuite {
    static final String HOST = System.getenv("PGHOST"), PORT = System.getenv("PGPORT");
    static final String USER = System.getenv("PGUSER"), DATABASE = System.getenv("PGDATABASE");
    static final String MINE = "DELETE FROM market.events WHERE kind = 'java'";
    static final String ADD = "INSERT INTO market.events (at, kind, n) VALUES (?, ?, ?)";
    static final Timestamp NOON = Timestamp.valueOf("2024-03-01 12:00:00");

    interface Part { void run(Connection connection) throws Exception; }
    interface Action { void run() throws Exception; }

    static Connection connect(String... options) throws SQLException {
        String more = Stream.concat(Stream.of("socketTimeout=30"), Arrays.stream(options)).collect(Collectors.joining("&"));
        return DriverManager.getConnection("jdbc:postgresql://" + HOST + ":" + PORT + "/" + DATABASE + "?" + more, USER, "");
    }

    static void with(Part part, String... options) throws Exception {
        try (Connection connection = connect(options)) {
            part.run(connection);
        }
    }

    static void same(Object expected, Object actual) {
        if (!Objects.equals(expected, actual)) throw new AssertionError("expected " + expected + ", but it is " + actual);
    }

    static void holds(boolean condition, String what) {
        if (!condition) throw new AssertionError(what);
    }

    static SQLException fails(String state, Action action) throws Exception {
        try {
            action.run();
        } catch (SQLException e) {
            if (!state.equals(e.getSQLState())) throw new AssertionError("expected " + state + ", but it is " + e.getSQLState(), e);
            return e;
        }
        throw new AssertionError("no " + state);
    }

    /** Rows as lists of texts: of the columns named, or of all. */
    static List<List<String>> rows(ResultSet from, String... columns) throws SQLException {
        try (from) {
            List<List<String>> rows = new ArrayList<>();
            int all = from.getMetaData().getColumnCount();
            while (from.next()) {
                List<String> row = new ArrayList<>();
                if (columns.length == 0) for (int i = 1; i <= all; i++) row.add(from.getString(i));
                for (String column : columns) row.add(from.getString(column));
                rows.add(row);
            }
            return rows;
        }
    }

    static List<String> column(ResultSet from, String column) throws SQLException {
        return rows(from, column).stream().map(row -> row.get(0)).collect(Collectors.toList());
    }

    static List<String> row(Object... values) {
        return Arrays.stream(values).map(v -> v == null ? null : v.toString()).collect(Collectors.toList());
    }

    static String one(Connection connection, String query) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            return rows(statement.executeQuery(query)).get(0).get(0);
        }
    }

    static int update(Connection connection, String text) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            return statement.executeUpdate(text);
        }
    }

    static void tables(Connection connection) throws Exception {
        DatabaseMetaData meta = connection.getMetaData();
        same(List.of(row("market", "events", "TABLE", null), row("market", "lines", "TABLE", null),
                row("market", "orders", "TABLE", "what was ordered"), row("market", "paid_orders", "VIEW", null)),
            rows(meta.getTables(null, "market", "%", new String[] {"TABLE", "VIEW"}), "TABLE_SCHEM", "TABLE_NAME", "TABLE_TYPE", "REMARKS")
                .stream().sorted((a, b) -> a.get(1).compareTo(b.get(1))).collect(Collectors.toList()));
        same(List.of("lines"), column(meta.getTables(null, "mark%", "l_n%s", new String[] {"TABLE"}), "TABLE_NAME"));
        same(List.of("orders"), column(meta.getTables(null, "market", "or%", new String[] {"TABLE"}), "TABLE_NAME"));
        same(List.of("paid_orders"), column(meta.getTables(null, "market", "paid\\_%", new String[] {"VIEW"}), "TABLE_NAME"));
        same(List.of(), column(meta.getTables(null, "market", "ORDERS", null), "TABLE_NAME"));
        same(List.of(), column(meta.getTables(null, "nowhere", "%", null), "TABLE_NAME"));
        holds(column(meta.getTables(null, null, null, null), "TABLE_NAME").containsAll(List.of("orders", "paid_orders", "pg_class")), "all tables");
        holds(column(meta.getTables(null, "pg_catalog", "pg_cl%", new String[] {"SYSTEM TABLE"}), "TABLE_NAME").contains("pg_class"), "system tables");

        holds(column(meta.getSchemas(), "TABLE_SCHEM").containsAll(List.of("information_schema", "market", "pg_catalog")), "schemas");
        same(List.of("market"), column(meta.getSchemas(null, "mark%"), "TABLE_SCHEM"));
        holds(column(meta.getCatalogs(), "TABLE_CAT").contains(DATABASE), "catalogs");
        holds(column(meta.getTableTypes(), "TABLE_TYPE").containsAll(List.of("TABLE", "VIEW", "SYSTEM TABLE")), "table types");

        holds(column(meta.getTablePrivileges(null, "market", "orders"), "PRIVILEGE").containsAll(List.of("SELECT", "INSERT", "DELETE")), "privileges");
        holds(rows(meta.getColumnPrivileges(null, "market", "orders", "amount"), "COLUMN_NAME", "PRIVILEGE").contains(row("amount", "SELECT")),
            "column privileges");
    }

    static void columns(Connection connection) throws Exception {
        DatabaseMetaData meta = connection.getMetaData();
        String[] facts = {"COLUMN_NAME", "DATA_TYPE", "TYPE_NAME", "COLUMN_SIZE", "DECIMAL_DIGITS", "NULLABLE", "REMARKS", "COLUMN_DEF",
            "ORDINAL_POSITION", "IS_NULLABLE", "IS_AUTOINCREMENT"};
        same(List.of(
                row("id", Types.BIGINT, "int8", 19, 0, 0, null, null, 1, "NO", "NO"),
                row("customer", Types.VARCHAR, "varchar", 20, 0, 0, "who ordered", null, 2, "NO", "NO"),
                row("amount", Types.NUMERIC, "numeric", 18, 4, 1, null, "0", 3, "YES", "NO"),
                row("placed", Types.TIMESTAMP, "timestamp", 29, 6, 1, null, null, 4, "YES", "NO"),
                row("day", Types.DATE, "date", 13, 0, 1, null, null, 5, "YES", "NO"),
                row("paid", Types.BIT, "bool", 1, 0, 1, null, null, 6, "YES", "NO"),
                row("weight", Types.DOUBLE, "float8", 17, 17, 1, null, null, 7, "YES", "NO"),
                row("note", Types.VARCHAR, "text", Integer.MAX_VALUE, 0, 1, null, null, 8, "YES", "NO")),
            rows(meta.getColumns(null, "market", "orders", "%"), facts));
        same(List.of(row("orders", "amount"), row("paid_orders", "amount")),
            rows(meta.getColumns(DATABASE, "market", "%", "am%"), "TABLE_NAME", "COLUMN_NAME"));
        same(List.of(), rows(meta.getColumns(null, "market", "nope", "%")));
        same(List.of("id"), column(meta.getBestRowIdentifier(null, "market", "orders", DatabaseMetaData.bestRowSession, true), "COLUMN_NAME"));
    }

    static void keys(Connection connection) throws Exception {
        DatabaseMetaData meta = connection.getMetaData();
        same(List.of(row("market", "orders", "id", 1, "orders_pkey")),
            rows(meta.getPrimaryKeys(null, "market", "orders"), "TABLE_SCHEM", "TABLE_NAME", "COLUMN_NAME", "KEY_SEQ", "PK_NAME"));
        same(List.of(row("order_id", 1), row("line", 2)), rows(meta.getPrimaryKeys(null, "market", "lines"), "COLUMN_NAME", "KEY_SEQ"));
        same(List.of(), rows(meta.getPrimaryKeys(null, "market", "events")));
        String[] facts = {"NON_UNIQUE", "INDEX_NAME", "TYPE", "ORDINAL_POSITION", "COLUMN_NAME", "ASC_OR_DESC"};
        same(List.of(row("f", "lines_pkey", DatabaseMetaData.tableIndexOther, 1, "order_id", "A"),
                row("f", "lines_pkey", DatabaseMetaData.tableIndexOther, 2, "line", "A")),
            rows(meta.getIndexInfo(null, "market", "lines", true, false), facts));
        same(List.of(), rows(meta.getIndexInfo(null, "market", "events", false, true)));
        same(List.of(), rows(meta.getImportedKeys(null, "market", "lines")));
        same(List.of(), rows(meta.getExportedKeys(null, "market", "orders")));
        same(List.of(), rows(meta.getCrossReference(null, "market", "orders", null, "market", "lines")));
    }

    static void server(Connection connection) throws Exception {
        DatabaseMetaData meta = connection.getMetaData();
        List<List<String>> types = rows(meta.getTypeInfo(), "TYPE_NAME", "DATA_TYPE");
        holds(types.containsAll(List.of(row("int8", Types.BIGINT), row("varchar", Types.VARCHAR), row("numeric", Types.NUMERIC),
            row("timestamp", Types.TIMESTAMP), row("date", Types.DATE), row("bool", Types.BIT), row("float8", Types.DOUBLE),
            row("text", Types.VARCHAR), row("bytea", Types.BINARY), row("_int8", Types.ARRAY))), "types: " + types);
        same(List.of(), rows(meta.getProcedures(null, "market", "%")));
        same(List.of(), rows(meta.getFunctions(null, "market", "%")));
        rows(meta.getFunctions(null, "pg_catalog", "pg_%"), "FUNCTION_NAME", "SPECIFIC_NAME");
        rows(meta.getFunctionColumns(null, "pg_catalog", "pg_sleep", "%"), "FUNCTION_NAME", "COLUMN_NAME", "TYPE_NAME");
        rows(meta.getProcedureColumns(null, "pg_catalog", "pg_sleep", "%"), "COLUMN_NAME");
        same(List.of(), rows(meta.getUDTs(null, "nowhere", "%", null)));
        rows(meta.getVersionColumns(null, "market", "orders"), "COLUMN_NAME");
        rows(meta.getClientInfoProperties(), "NAME");

        holds(!meta.getSQLKeywords().isEmpty(), "keywords");
        same("PostgreSQL", meta.getDatabaseProductName());
        holds(meta.getDatabaseMajorVersion() >= 14, "version " + meta.getDatabaseProductVersion());
        same(USER, meta.getUserName());
        same(8192, meta.getMaxConnections());
        same(63, meta.getMaxColumnNameLength());
        same(63, meta.getMaxTableNameLength());
        same(32, meta.getMaxColumnsInIndex());
        same(Connection.TRANSACTION_READ_COMMITTED, meta.getDefaultTransactionIsolation());
        holds(meta.supportsTransactions() && meta.supportsSavepoints() && meta.supportsBatchUpdates(), "transactions");
        holds(!meta.isReadOnly(), "read only");

        same(DATABASE, connection.getCatalog());
        holds(connection.isValid(5), "valid");
        connection.setClientInfo("ApplicationName", "suite");
        same("suite", one(connection, "SHOW application_name"));
        same("suite", connection.getClientInfo("ApplicationName"));
        connection.setSchema("market");
        same("market", connection.getSchema());
        same("3", one(connection, "SELECT count(*) FROM orders"));
        connection.setSchema("public");
    }

    static void described(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement(); ResultSet result = statement.executeQuery("SELECT o.*, id + 1 AS next FROM market.orders o")) {
            ResultSetMetaData meta = result.getMetaData();
            PGResultSetMetaData more = meta.unwrap(PGResultSetMetaData.class);
            same(9, meta.getColumnCount());
            List<List<String>> seen = new ArrayList<>();
            for (int i = 1; i <= 8; i++) {
                same("orders", meta.getTableName(i));
                same("orders", more.getBaseTableName(i));
                same("market", more.getBaseSchemaName(i));
                same(meta.getColumnName(i), more.getBaseColumnName(i));
                holds(!meta.isAutoIncrement(i), "counts by itself");
                seen.add(row(meta.getColumnLabel(i), meta.getColumnType(i), meta.getColumnTypeName(i), meta.getPrecision(i), meta.getScale(i),
                    meta.getColumnDisplaySize(i), meta.isNullable(i), meta.isSigned(i), meta.getColumnClassName(i)));
            }
            same(List.of(
                row("id", Types.BIGINT, "int8", 19, 0, 20, 0, true, "java.lang.Long"),
                row("customer", Types.VARCHAR, "varchar", 20, 0, 20, 0, false, "java.lang.String"),
                row("amount", Types.NUMERIC, "numeric", 18, 4, 20, 1, true, "java.math.BigDecimal"),
                row("placed", Types.TIMESTAMP, "timestamp", 29, 6, 29, 1, false, "java.sql.Timestamp"),
                row("day", Types.DATE, "date", 13, 0, 13, 1, false, "java.sql.Date"),
                row("paid", Types.BIT, "bool", 1, 0, 1, 1, false, "java.lang.Boolean"),
                row("weight", Types.DOUBLE, "float8", 17, 17, 25, 1, true, "java.lang.Double"),
                row("note", Types.VARCHAR, "text", Integer.MAX_VALUE, 0, Integer.MAX_VALUE, 1, false, "java.lang.String")), seen);
            same("next", meta.getColumnLabel(9));
            same("", more.getBaseColumnName(9));
            same(ResultSetMetaData.columnNullableUnknown, meta.isNullable(9));
        }
        try (PreparedStatement statement = connection.prepareStatement("SELECT id AS key FROM market.orders WHERE customer = ? AND amount > ?")) {
            same("key", statement.getMetaData().getColumnLabel(1));
            same("id", statement.getMetaData().unwrap(PGResultSetMetaData.class).getBaseColumnName(1));
            same(2, statement.getParameterMetaData().getParameterCount());
            same(Types.NUMERIC, statement.getParameterMetaData().getParameterType(2));
        }
    }

    /** From the sixth execution on statements are prepared by name and answers are binary; prepareThreshold=-1 makes all so. */
    static void prepared(Connection connection) throws Exception {
        try (PreparedStatement statement = connection.prepareStatement("SELECT * FROM market.orders WHERE id = ?")) {
            for (int i = 0; i < 8; i++) {
                statement.setLong(1, 1);
                try (ResultSet result = statement.executeQuery()) {
                    holds(result.next(), "a row");
                    same(1L, result.getObject("id"));
                    same(1, result.getInt("id"));
                    same("ann", result.getString("customer"));
                    same(new BigDecimal("10.5000"), result.getBigDecimal("amount"));
                    same(Timestamp.valueOf("2024-01-02 03:04:05"), result.getTimestamp("placed"));
                    same(LocalDateTime.parse("2024-01-02T03:04:05"), result.getObject("placed", LocalDateTime.class));
                    same("2024-01-02 03:04:05", result.getString("placed"));
                    same(Date.valueOf("2024-01-02"), result.getDate("day"));
                    same(LocalDate.parse("2024-01-02"), result.getObject("day", LocalDate.class));
                    same(true, result.getObject("paid"));
                    same(1.5, result.getObject("weight"));
                    same("first", result.getObject("note"));
                }
                statement.setLong(1, 3);
                try (ResultSet result = statement.executeQuery()) {
                    holds(result.next(), "a row");
                    for (String name : List.of("amount", "placed", "day", "paid")) same(null, result.getObject(name));
                    same(0.1, result.getDouble("weight"));
                    same("o'clock", result.getString("note"));
                }
            }
            holds(statement.unwrap(PGStatement.class).isUseServerPrepare(), "prepared by name");
        }
        String[] conditions = {"id = ?", "customer = ?", "amount = ?", "placed = ?", "day = ?", "paid = ?", "weight = ?", "note = ?", "id = ANY(?)"};
        Object[] values = {1L, "ann", new BigDecimal("10.5"), Timestamp.valueOf("2024-01-02 03:04:05"), LocalDate.parse("2024-01-02"), true, 1.5,
            "first", connection.createArrayOf("int8", new Long[] {1L, 9L})};
        for (int c = 0; c < conditions.length; c++) {
            try (PreparedStatement statement = connection.prepareStatement("SELECT id FROM market.orders WHERE " + conditions[c])) {
                for (int i = 0; i < 7; i++) {
                    statement.setObject(1, values[c]);
                    same(List.of("1"), column(statement.executeQuery(), "id"));
                }
            }
        }
        String casts = "SELECT ?::smallint AS a, ?::int AS b, ?::bigint AS c, ?::real AS d, ?::double precision AS e, ?::numeric(38, 10) AS f,"
            + " ?::text AS g, ?::boolean AS h, ?::date AS i, ?::timestamp AS j, ?::timestamptz AS k, ?::bytea AS l, ?::int[] AS m, ?::text[] AS n, ?::int AS o";
        try (PreparedStatement statement = connection.prepareStatement(casts)) {
            for (int i = 0; i < 7; i++) {
                statement.setShort(1, (short) -7);
                statement.setInt(2, Integer.MIN_VALUE);
                statement.setLong(3, Long.MAX_VALUE);
                statement.setFloat(4, 1.5f);
                statement.setDouble(5, -0.1);
                statement.setBigDecimal(6, new BigDecimal("-1234567890123456789.0123456789"));
                statement.setString(7, "é🐘\n");
                statement.setBoolean(8, false);
                statement.setDate(9, Date.valueOf("1969-12-31"));
                statement.setTimestamp(10, Timestamp.valueOf("2024-02-29 01:02:03.456789"));
                statement.setObject(11, OffsetDateTime.parse("2024-02-29T01:02:03+02:00"));
                statement.setBytes(12, new byte[] {0, 1, -1});
                statement.setArray(13, connection.createArrayOf("int4", new Integer[] {1, null, 3}));
                statement.setArray(14, connection.createArrayOf("text", new String[] {"a", null, "b\"c,{d}"}));
                statement.setNull(15, Types.INTEGER);
                try (ResultSet result = statement.executeQuery()) {
                    holds(result.next(), "a row");
                    same((short) -7, result.getShort(1));
                    same(Integer.MIN_VALUE, result.getObject(2));
                    same(Long.MAX_VALUE, result.getObject(3));
                    same(1.5f, result.getObject(4));
                    same(-0.1, result.getObject(5));
                    same(new BigDecimal("-1234567890123456789.0123456789"), result.getObject(6));
                    same("é🐘\n", result.getObject(7));
                    same(false, result.getObject(8));
                    same(Date.valueOf("1969-12-31"), result.getObject(9));
                    same(Timestamp.valueOf("2024-02-29 01:02:03.456789"), result.getObject(10));
                    same(OffsetDateTime.parse("2024-02-28T23:02:03Z"), result.getObject(11, OffsetDateTime.class));
                    holds(Arrays.equals(new byte[] {0, 1, -1}, result.getBytes(12)), "bytes");
                    holds(Arrays.equals(new Integer[] {1, null, 3}, (Object[]) result.getArray(13).getArray()), "numbers");
                    holds(Arrays.equals(new String[] {"a", null, "b\"c,{d}"}, (Object[]) result.getArray(14).getArray()), "texts");
                    same(null, result.getObject(15));
                    holds(result.wasNull(), "null");
                }
            }
        }
    }

    static void fetched(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement();
                PreparedStatement other = connection.prepareStatement("SELECT line FROM market.lines WHERE order_id = ?")) {
            statement.setFetchSize(2);
            try (ResultSet result = statement.executeQuery("SELECT id FROM market.orders ORDER BY id")) {
                for (long id = 1; id <= 3; id++) {
                    holds(result.next(), "a row");
                    same(id, result.getLong(1));
                    other.setLong(1, id);
                    same(List.of(2, 1, 0).get((int) id - 1), column(other.executeQuery(), "line").size());
                }
                holds(!result.next(), "the end");
            }
            statement.setFetchSize(7);
            try (ResultSet result = statement.executeQuery("SELECT n::int AS n FROM generate_series(1, 100) AS g(n)")) {
                long sum = 0;
                while (result.next()) sum += result.getInt("n");
                same(5050L, sum);
            }
            // Left open: the next statement and the end of the block take it away.
            ResultSet early = statement.executeQuery("SELECT n::int AS n FROM generate_series(1, 100) AS g(n)");
            holds(early.next(), "a row");
            same("1", one(connection, "SELECT 1::int AS one"));
            statement.setMaxRows(2);
            same(2, column(statement.executeQuery("SELECT id FROM market.orders"), "id").size());
        }
        connection.commit();
        connection.setAutoCommit(true);
        try (Statement statement = connection.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_READ_ONLY);
                ResultSet result = statement.executeQuery("SELECT id FROM market.orders ORDER BY id")) {
            holds(result.last() && result.getRow() == 3 && result.first() && result.getLong(1) == 1, "scrolled");
        }
    }

    static void transactions(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        Savepoint named = connection.setSavepoint("named");
        Savepoint nameless = connection.setSavepoint();
        fails("42P01", () -> one(connection, "SELECT * FROM market.nope"));
        fails("25P02", () -> one(connection, "SELECT 1"));
        connection.rollback(nameless);
        same("3", one(connection, "SELECT count(*) FROM market.orders"));
        connection.releaseSavepoint(named);
        fails("3B001", () -> connection.createStatement().execute("ROLLBACK TO SAVEPOINT named"));
        connection.rollback();

        same(Connection.TRANSACTION_READ_COMMITTED, connection.getTransactionIsolation());
        connection.rollback();
        connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        same(Connection.TRANSACTION_SERIALIZABLE, connection.getTransactionIsolation());
        connection.rollback();
        connection.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
        connection.setReadOnly(true);
        same("3", one(connection, "SELECT count(*) FROM market.orders"));
        fails("25006", () -> update(connection, "INSERT INTO market.events VALUES ('2024-03-01', 'java', 0)"));
        connection.rollback();
        connection.setReadOnly(false);
        connection.setAutoCommit(true);
    }

    static void saved(Connection connection, String autosave) throws Exception {
        connection.setAutoCommit(false);
        same("1", one(connection, "SELECT 1::int AS one"));
        fails("42P01", () -> one(connection, "SELECT * FROM market.nope"));
        if (autosave.equals("always")) same("2", one(connection, "SELECT 2::int AS two"));
        else fails("25P02", () -> one(connection, "SELECT 2"));
        connection.rollback();
    }

    static void stopped(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            fails("57014", () -> statement.execute("SELECT pg_sleep(10)"));
            statement.setQueryTimeout(0);
            Thread canceller = new Thread(() -> {
                try {
                    Thread.sleep(300);
                    statement.cancel();
                } catch (Exception e) {
                    throw new AssertionError(e);
                }
            });
            canceller.start();
            fails("57014", () -> statement.execute("SELECT pg_sleep(10)"));
            canceller.join();
            statement.execute("SET statement_timeout = 200");
            fails("57014", () -> statement.execute("SELECT pg_sleep(10)"));
            statement.execute("RESET statement_timeout");
            same("1", one(connection, "SELECT 1::int AS one"));
        }
    }

    static void batches(Connection connection, boolean rewrite) throws Exception {
        try (PreparedStatement statement = connection.prepareStatement(ADD)) {
            for (int n = 0; n < 10; n++) {
                statement.setTimestamp(1, NOON);
                statement.setString(2, "java");
                if (n == 0) statement.setNull(3, Types.INTEGER);
                else statement.setInt(3, n);
                statement.addBatch();
            }
            int[] counts = new int[10];
            Arrays.fill(counts, rewrite ? Statement.SUCCESS_NO_INFO : 1);
            same(Arrays.toString(counts), Arrays.toString(statement.executeBatch()));
        }
        try (PreparedStatement statement = connection.prepareStatement("SELECT count(*) AS c, sum(n) AS s FROM market.events WHERE kind = ? AND at = ?")) {
            statement.setString(1, "java");
            statement.setTimestamp(2, NOON);
            same(List.of(row(10, 45)), rows(statement.executeQuery()));
        }
        try (Statement statement = connection.createStatement()) {
            statement.addBatch("DELETE FROM market.events WHERE kind = 'java' AND n < 5");
            statement.addBatch(MINE);
            same("[4, 6]", Arrays.toString(statement.executeBatch()));
            statement.addBatch("INSERT INTO market.nope VALUES (1)");
            fails("42P01", statement::executeBatch);
        }
    }

    static void copies(Connection connection) throws Exception {
        CopyManager copy = connection.unwrap(PGConnection.class).getCopyAPI();
        StringWriter out = new StringWriter();
        same(3L, copy.copyOut("COPY (SELECT id, customer, note FROM market.orders ORDER BY id) TO STDOUT", out));
        same("1\tann\tfirst\n2\tbob\t\\N\n3\tcy\to'clock\n", out.toString());
        ByteArrayOutputStream csv = new ByteArrayOutputStream();
        copy.copyOut("COPY (SELECT day, paid, amount FROM market.orders ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER, NULL 'none')", csv);
        same("day,paid,amount\n2024-01-02,t,10.5000\n2024-01-03,f,20.2500\nnone,none,none\n", csv.toString(StandardCharsets.UTF_8));
        same(2L, copy.copyIn("COPY market.events (at, kind, n) FROM STDIN",
            new StringReader("2024-03-01 12:00:00\tjava\t1\n2024-03-01 12:00:00\tjava\t\\N\n")));
        same(1L, copy.copyIn("COPY market.events FROM STDIN WITH (FORMAT csv)", new StringReader("2024-03-01 12:00:00,\"java\",\n")));
        fails("22P02", () -> copy.copyIn("COPY market.events FROM STDIN", new StringReader("2024-03-01 12:00:00\tjava\tone\n")));
        copy.copyIn("COPY market.events FROM STDIN").cancelCopy();
        fails("42P01", () -> copy.copyOut("COPY market.nope TO STDOUT"));
        same(3, update(connection, MINE));
    }

    static void errors(Connection connection) throws Exception {
        String[][] cases = {
            {"42P01", "SELECT * FROM market.nope"}, {"42703", "SELECT nope FROM market.orders"}, {"42601", "SELECT * FROM market.orders WHERE WHERE"},
            {"42883", "SELECT no_such_function(1)"}, {"22012", "SELECT 1 / 0"}, {"22P02", "SELECT 'x'::int"},
            {"23502", "INSERT INTO market.events VALUES (NULL, 'java', 1)"},
            {"22001", "INSERT INTO market.events VALUES ('2024-03-01', 'much too long a kind', 1)"},
        };
        for (String[] each : cases) fails(each[0], () -> connection.createStatement().execute(each[1]));
        SQLException one = fails("42601", () -> connection.createStatement().execute("SELECT id FRM market.orders WHERE id = 1"));
        same(15, ((PSQLException) one).getServerErrorMessage().getPosition());
        fails("22P02", () -> {
            try (PreparedStatement statement = connection.prepareStatement("SELECT id FROM market.orders WHERE id = ?")) {
                statement.setObject(1, "one", Types.OTHER);
                statement.executeQuery();
            }
        });
    }

    static void mode(Connection connection) throws Exception {
        for (int i = 0; i < 6; i++) {
            try (PreparedStatement statement = connection.prepareStatement("SELECT customer FROM market.orders WHERE id = ? AND day = ? AND amount > ?")) {
                statement.setLong(1, 1);
                statement.setDate(2, Date.valueOf("2024-01-02"));
                statement.setBigDecimal(3, new BigDecimal("-1.5"));
                same(List.of("ann"), column(statement.executeQuery(), "customer"));
            }
            same("3", one(connection, "SELECT count(*) FROM market.orders"));
        }
        try (Statement statement = connection.createStatement()) {
            holds(statement.execute("SELECT 1::int AS a; SELECT 2::int AS b"), "rows");
            same(List.of(row(1)), rows(statement.getResultSet()));
            holds(statement.getMoreResults(), "more rows");
            same(List.of(row(2)), rows(statement.getResultSet()));
        }
        fails("42P01", () -> one(connection, "SELECT * FROM market.nope"));
        holds(connection.isValid(5), "valid");
    }

    static void texts(Connection connection) throws Exception {
        try (PreparedStatement statement = connection.prepareStatement("SELECT id FROM market.orders WHERE id = ? AND day = ?")) {
            statement.setString(1, "1");
            statement.setString(2, "2024-01-02");
            same(List.of("1"), column(statement.executeQuery(), "id"));
        }
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, Part> parts = new LinkedHashMap<>();
        parts.put("tables", ClientSuite::tables);
        parts.put("columns", ClientSuite::columns);
        parts.put("keys", ClientSuite::keys);
        parts.put("server", ClientSuite::server);
        parts.put("described", ClientSuite::described);
        parts.put("prepared", ClientSuite::prepared);
        parts.put("binary", connection -> with(ClientSuite::prepared, "prepareThreshold=-1"));
        parts.put("texts", connection -> with(ClientSuite::texts, "prepareThreshold=0", "binaryTransfer=false", "stringtype=unspecified"));
        parts.put("fetched", ClientSuite::fetched);
        parts.put("transactions", ClientSuite::transactions);
        for (String autosave : List.of("always", "conservative")) {
            parts.put("autosave " + autosave, unused -> with(connection -> saved(connection, autosave), "autosave=" + autosave));
        }
        parts.put("stopped", ClientSuite::stopped);
        for (boolean rewrite : new boolean[] {false, true}) {
            parts.put("batches, rewritten: " + rewrite, unused -> with(connection -> batches(connection, rewrite), "reWriteBatchedInserts=" + rewrite));
        }
        parts.put("copies", ClientSuite::copies);
        parts.put("errors", ClientSuite::errors);
        for (String mode : List.of("simple", "extended", "extendedForPrepared", "extendedCacheEverything")) {
            parts.put("mode " + mode, unused -> with(ClientSuite::mode, "preferQueryMode=" + mode));
        }

        // All parts run, so that one look shows all that is wrong.
        List<String> failed = new ArrayList<>();
        for (Map.Entry<String, Part> part : parts.entrySet()) {
            try {
                with(part.getValue());
            } catch (Exception | AssertionError e) {
                failed.add(part.getKey());
                System.err.println("in " + part.getKey() + ":");
                e.printStackTrace();
            } finally {
                with(connection -> update(connection, MINE));
            }
        }
        if (!failed.isEmpty()) {
            System.err.println("failed: " + failed);
            System.exit(1);
        }
        System.out.println("jdbc passed");
    }
}
