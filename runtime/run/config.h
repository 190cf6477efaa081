// What the model is: sizes and positions. Plain data; the same numbers go into config.json.
// Names follow the field: T context, V vocabulary (Vp padded), L layers, C width, NH heads, NKV key/value heads, HS head size.
#pragma once
#include <cstddef>
#include <string>

enum class Position { learned, sinusoidal, rope, alibi, power, none };
enum class QvRope { key, vo };           // ATTENTION.md "Positions": where QV's rotation goes

struct ModelConfig {
    int T = 128;                         // context: longest sequence
    int V = 256;                         // vocabulary of the tokenizer
    int L = 4, C = 128, NH = 4;          // layers, width, query heads
    int NKV = 0;                         // key/value heads; 0: the variant's default
    int HS = 0;                          // head size; 0: C / NH. NH * HS need not equal C
    int F = 0;                           // MLP width; 0: 4 C
    Position pos = Position::rope;
    double rope_theta = 10000;
    QvRope qv_rope = QvRope::key;
    int qvka_dctx = -1;                  // width of QV-Ka's context vector G; -1: 2 HS
    bool qvka_tied = false;              // one W_K for all heads
    int mla_dc = 0, mla_dr = -1, mla_dcq = -1;   // latent, rotary, query-latent widths; 0/-1: 4 HS, HS / 2, 8 HS. dr 0: none; dcq 0: no query compression
    int Vp() const { return (V + 127) / 128 * 128; }   // padded so that the head's product has aligned rows; the padding never gets probability
};

const char* position_name(Position p);
Position position_from_name(const std::string& name);   // fails with the list of names
