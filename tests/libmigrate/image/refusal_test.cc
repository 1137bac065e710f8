// The table of refusals, and what is made of it.
#include "libmigrate/image/refusal.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <set>

namespace migrate {
namespace {

const RefusalKind& kind_of(std::string_view code) {
  static const std::vector<RefusalKind> kinds = refusal_kinds();
  return *std::ranges::find(kinds, code, &RefusalKind::code);
}

// Documents and `explain` go by the table: it is looked through by people.
TEST(RefusalKinds, AreInOrderAndEachIsThereOnce) {
  const auto kinds = refusal_kinds();
  ASSERT_GT(kinds.size(), 50U);
  EXPECT_TRUE(std::ranges::is_sorted(kinds, std::ranges::less(), &RefusalKind::code));
  std::set<std::string_view> codes;
  for (const RefusalKind& kind : kinds) {
    EXPECT_TRUE(codes.insert(kind.code).second) << kind.code;
  }
}

TEST(RefusalKinds, SayWhyAndWhatToDo) {
  for (const RefusalKind& kind : refusal_kinds()) {
    EXPECT_FALSE(kind.reason.empty()) << kind.code;
    EXPECT_FALSE(kind.remedy.empty()) << kind.code;
    // They are put together, "OBJECT: REASON: DETAIL; REMEDY".
    for (const std::string_view text : {kind.reason, kind.remedy}) {
      EXPECT_FALSE(text.ends_with('.')) << text;
      EXPECT_EQ(text.find('\n'), std::string_view::npos) << text;
    }
    EXPECT_TRUE(std::ranges::all_of(kind.code, [](unsigned char letter) {
      return std::isupper(letter) != 0 || std::isdigit(letter) != 0 || letter == '_';
    })) << kind.code;
  }
}

TEST(RefusalKinds, ThoseThatPassSaySo) {
  for (const RefusalKind& kind : refusal_kinds()) {
    const bool says = kind.remedy.find("moment") != std::string_view::npos ||
                      kind.remedy.find("try again") != std::string_view::npos;
    EXPECT_TRUE(says || !kind.transient) << kind.code;
  }
}

TEST(Refusals, HaveReasonAndRemedyOfTheirKind) {
  const wire::Refusal refusal = make_refusal("TRACED", "process 7");
  EXPECT_EQ(refusal.code(), "TRACED");
  EXPECT_EQ(refusal.object(), "process 7");
  EXPECT_EQ(refusal.reason(), kind_of("TRACED").reason);
  EXPECT_EQ(refusal.remedy(), kind_of("TRACED").remedy);
}

TEST(Refusals, ADetailContinuesTheReason) {
  const wire::Refusal refusal = make_refusal("MEMORY", "300 MiB", "20 MiB available");
  EXPECT_EQ(refusal.reason(), std::string(kind_of("MEMORY").reason) + ": 20 MiB available");
}

// A peer of a later version may know more of them.
TEST(Refusals, OfAKindThatIsNotKnownHaveTheirDetailOnly) {
  const wire::Refusal refusal = make_refusal("TOO_GREEN", "process 7", "it is green");
  EXPECT_EQ(refusal.code(), "TOO_GREEN");
  EXPECT_EQ(refusal.reason(), "it is green");
  EXPECT_TRUE(refusal.remedy().empty());
  EXPECT_FALSE(is_transient(refusal));
}

TEST(Refusals, OfSomeObjectsHaveARemedyThatFits) {
  const std::string usual(kind_of("FILE_MISSING").remedy);
  EXPECT_EQ(make_refusal("FILE_MISSING", "mapped file /srv/a").remedy(), usual);
  const std::string own = make_refusal("FILE_MISSING", "mapped file /tmp/a").remedy();
  EXPECT_NE(own, usual);
  EXPECT_EQ(make_refusal("FILE_MISSING", "descriptor 3 -> /dev/shm/a").remedy(), own);
  // The first that fits: Java's own file is in such a folder, too.
  const std::string java =
      make_refusal("FILE_MISSING", "mapped file /tmp/hsperfdata_root/7").remedy();
  EXPECT_NE(java.find("-XX:-UsePerfData"), std::string::npos);
  EXPECT_EQ(make_refusal("FILE_DIFFERS", "mapped file /tmp/hsperfdata_root/7").remedy(), java);
  // A folder of that name elsewhere is not the source's own.
  EXPECT_EQ(make_refusal("FILE_MISSING", "mapped file /srv/tmp/a").remedy(), usual);
}

TEST(Refusals, OfNamespacesSayWhichWasMeant) {
  std::set<std::string> remedies;
  for (const char* const name : {"net", "mnt", "user", "pid_for_children"}) {
    remedies.insert(make_refusal("NAMESPACE", std::string("namespace ") + name).remedy());
  }
  EXPECT_EQ(remedies.size(), 4U);
  EXPECT_FALSE(remedies.contains(std::string(kind_of("NAMESPACE").remedy)));
}

TEST(Refusals, AreTriedAgainOnlyIfAllMayPass) {
  const Refusals passing = {make_refusal("FILE_LOCK", "a"), make_refusal("HELD", "b")};
  EXPECT_TRUE(all_transient(passing));
  Refusals mixed = passing;
  mixed.push_back(make_refusal("TRACED", "c"));
  EXPECT_FALSE(all_transient(mixed));
  EXPECT_FALSE(all_transient({})) << "nothing that could pass";
}

}  // namespace
}  // namespace migrate
