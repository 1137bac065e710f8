// A C++20 job that links libmigrate.
#include <libmigrate/migrate.h>

#include <iostream>
#include <memory>
#include <string_view>

int main() {
  migrate_options options{};
  options.socket = "/nonexistent/migrated.sock";
  char* text = nullptr;
  const int status = migrate_check(0, nullptr, &options, &text);
  const std::unique_ptr<char, decltype(&migrate_free)> report(text, migrate_free);
  std::cout << "status " << status << ": " << migrate_strerror(status) << '\n';
  return std::string_view(migrate_last_error()).empty() ? 1 : 0;
}
