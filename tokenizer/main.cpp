// The tool `tokenizer`; everything is in command.cpp, so that the tests can link it.
#include "tokenizer/command.h"

int main(int argc, char** argv) { return tokenizer_command(argc, argv); }
