// Multiple-choice questions in HellaSwag's JSON lines [Zellers et al. 2019]: {"ctx": "...", "endings": ["...", ...], "label": 2} a line;
// other keys are left alone. questions_score.h scores a model by them.
#pragma once
#include <string>
#include <vector>

struct Question { std::string context; std::vector<std::string> endings; int label; };   // label: of the right ending, from 0

std::vector<Question> questions_read(const std::string& path);      // throws, naming the line that is not one
