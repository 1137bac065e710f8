// A C++20 job that links libmigrate.
#include <iostream>
#include <libmigrate/migrate.hpp>

int main() {
  const migrate::result checked = migrate::check_self({}, {.socket = "/nonexistent/migrated.sock"});
  std::cout << "status " << checked.status() << ": " << migrate_strerror(checked.status()) << '\n';
  return checked.message().empty() ? 1 : 0;
}
