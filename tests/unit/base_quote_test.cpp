#include "catch.h"
#include "supervisor/base/quote.h"

using jail::escape;
using jail::quote;

TEST_CASE("quote makes hostile bytes visible") {
  CHECK(quote("plain") == "'plain'");
  CHECK(quote("it's") == "'it\\'s'");
  CHECK(quote("a\nb\x1b[31m") == "'a\\x0ab\\x1b[31m'");
  CHECK(quote(std::string_view("\0x", 2)) == "'\\x00x'");
  CHECK(quote("caf\xc3\xa9") == "'caf\xc3\xa9'");
  CHECK(quote("caf\xe9") == "'caf\\xe9'");
  CHECK(quote("0123456789", 4) == "'0123'...");
}

TEST_CASE("escape leaves valid UTF-8 and backslashes, and nothing that a terminal obeys") {
  CHECK(escape("path\\to \xe2\x82\xac") == "path\\to \xe2\x82\xac");
  CHECK(escape("\xc2\x9b"
               "31m") == "\\xc2\\x9b31m");                      // C1 control: CSI
  CHECK(escape("\xc0\xaf") == "\\xc0\\xaf");                    // overlong
  CHECK(escape("\xed\xa0\x80") == "\\xed\\xa0\\x80");           // surrogate
  CHECK(escape("\xf4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");  // above U+10FFFF
  CHECK(escape("\xe2\x82") == "\\xe2\\x82");                    // cut short
}
