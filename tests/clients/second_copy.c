/* A plug-in that brings a SQLite of its own, as Python wheels and the like do. No header: the test
   runs where SQLite's development files are not installed. */
typedef struct sqlite3 sqlite3;
int sqlite3_open_v2(const char *, sqlite3 **, int, const char *);
int sqlite3_exec(sqlite3 *, const char *, int (*)(void *, int, char **, char **), void *, char **);
int sqlite3_close(sqlite3 *);
void *sqlite3_vfs_find(const char *);

static int first_column(void *out, int count, char **values, char **names) {
  (void)names;
  if (count > 0 && values[0]) *(char *)out = values[0][0];
  return 0;
}

/* Whether Interleaf's VFS is registered with this plug-in's SQLite. */
int second_copy_has_vfs(void) { return sqlite3_vfs_find("interleaf") != 0; }

/* First character of the first value of the last row, or -1 - code after an error. */
int second_copy_run(const char *name, const char *sql) {
  sqlite3 *db = 0;
  char first = 0;
  int code = sqlite3_open_v2(name, &db, 6, 0);
  if (code == 0) code = sqlite3_exec(db, sql, first_column, &first, 0);
  sqlite3_close(db);
  return code == 0 ? first : -1 - code;
}
