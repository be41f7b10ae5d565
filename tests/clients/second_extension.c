/* An extension that has nothing to do with Interleaf, to be loaded beside it. */
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT1

static void twice(sqlite3_context *context, int count, sqlite3_value **values) {
  (void)count;
  sqlite3_result_int64(context, 2 * sqlite3_value_int64(values[0]));
}

int sqlite3_secondextension_init(sqlite3 *db, char **message, const sqlite3_api_routines *api) {
  SQLITE_EXTENSION_INIT2(api);
  (void)message;
  return sqlite3_create_function(db, "second_extension_twice", 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, 0,
                                 twice, 0, 0);
}
