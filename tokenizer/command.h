// The command-line tool `tokenizer`: train, encode, decode. main.cpp calls it; tests call it without a process.
#pragma once

int tokenizer_command(int argc, char** argv);   // the exit code; errors are one line on stderr
