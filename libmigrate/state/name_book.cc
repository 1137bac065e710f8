#include "libmigrate/state/name_book.h"

#include <fcntl.h>

#include <utility>

#include "base/file.h"

namespace migrate {
namespace {

constexpr const char* kTables =
    "CREATE TABLE IF NOT EXISTS names ("
    " name TEXT PRIMARY KEY, identity TEXT NOT NULL, user INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS links ("
    " process TEXT NOT NULL, other TEXT NOT NULL, signal INTEGER NOT NULL, user INTEGER NOT NULL,"
    " asker TEXT NOT NULL, PRIMARY KEY (process, other));";

GivenName name_from(const Statement& row) {
  return {.name = row.text(0), .identity = row.text(1), .user = static_cast<uid_t>(row.number(2))};
}

Error too_many(const char* what, uid_t user) {
  return make_error(ErrorCode::kRefused, what, "user " + std::to_string(user),
                    "there are " + std::to_string(NameBook::kMostOfUser) +
                        " of this user already; take some away");
}

}  // namespace

std::string NameBook::path(const std::string& state_directory) {
  return state_directory + "/names.sqlite";
}

std::string NameBook::links_mark(const std::string& state_directory) {
  return state_directory + "/links";
}

Result<NameBook> NameBook::open(const std::string& state_directory, int patience_ms) {
  return NameBook(
      MIGRATE_TRY(Database::open(path(state_directory), patience_ms,
                                 [](Database& database) { return database.execute(kTables); })),
      links_mark(state_directory));
}

Result<std::size_t> NameBook::count(const char* table, uid_t user) {
  const std::string sql = std::string("SELECT count(*) FROM ") + table + " WHERE user=?1";
  Statement query(database_, sql.c_str());
  query.bind(1, std::int64_t{user});
  MIGRATE_TRY(query.step());
  return static_cast<std::size_t>(query.number(0));
}

Result<void> NameBook::give(const GivenName& given) {
  if (MIGRATE_TRY(count("names", given.user)) >= kMostOfUser) {
    return fail(too_many("give a name for", given.user));
  }
  Statement row(database_,
                "INSERT INTO names (name, identity, user) VALUES (?1,?2,?3)"
                " ON CONFLICT (name) DO UPDATE SET user=?3 WHERE identity=?2");
  row.bind(1, given.name).bind(2, given.identity).bind(3, std::int64_t{given.user});
  MIGRATE_TRY(row.step());
  if (database_.changes() == 0) {
    return fail(make_error(ErrorCode::kRefused, "give the name", given.name,
                           "another process of this home has it; take another, or take it away "
                           "from that one"));
  }
  return {};
}

Result<std::optional<GivenName>> NameBook::find(const std::string& name) {
  Statement query(database_, "SELECT name, identity, user FROM names WHERE name=?1");
  query.bind(1, name);
  return MIGRATE_TRY(query.step()) ? std::optional(name_from(query)) : std::nullopt;
}

Result<bool> NameBook::remove(const char* sql, const std::string& first,
                              const std::string& second) {
  Statement row(database_, sql);
  row.bind(1, first).bind(2, second);
  MIGRATE_TRY(row.step());
  return database_.changes() != 0;
}

Result<bool> NameBook::take_away(const GivenName& given) {
  return remove("DELETE FROM names WHERE name=?1 AND identity=?2", given.name, given.identity);
}

Result<std::vector<GivenName>> NameBook::names() {
  Statement query(database_, "SELECT name, identity, user FROM names ORDER BY name");
  std::vector<GivenName> names;
  while (MIGRATE_TRY(query.step())) {
    names.push_back(name_from(query));
  }
  return names;
}

Result<void> NameBook::link(const EndLink& link) {
  if (MIGRATE_TRY(count("links", link.user)) >= kMostOfUser) {
    return fail(too_many("link processes of", link.user));
  }
  Statement row(database_,
                "INSERT OR REPLACE INTO links (process, other, signal, user, asker)"
                " VALUES (?1,?2,?3,?4,?5)");
  row.bind(1, link.process).bind(2, link.other).bind(3, std::int64_t{link.signal});
  row.bind(4, std::int64_t{link.user}).bind(5, link.asker);
  MIGRATE_TRY(row.step());
  return mark_links();
}

Result<void> NameBook::mark_links() {
  MIGRATE_TRY(open_file(links_mark_, O_WRONLY | O_CREAT, 0600));
  return {};
}

Result<bool> NameBook::unlink(const std::string& process, const std::string& other) {
  return remove("DELETE FROM links WHERE process=?1 AND other=?2", process, other);
}

Result<std::vector<EndLink>> NameBook::links(const std::string& process) {
  Statement query(database_,
                  "SELECT process, other, signal, user, asker FROM links"
                  " WHERE ?1='' OR process=?1 ORDER BY rowid");
  query.bind(1, process);
  std::vector<EndLink> links;
  while (MIGRATE_TRY(query.step())) {
    links.push_back({.process = query.text(0),
                     .other = query.text(1),
                     .signal = static_cast<int>(query.number(2)),
                     .user = static_cast<uid_t>(query.number(3)),
                     .asker = query.text(4)});
  }
  return links;
}

}  // namespace migrate
