/* 3x3 convolutions with stride 1 and padding 1, and their gradients, by Winograd's F(4x4, 3x3):
 * 2.25 multiplications per pixel and channel pair instead of 9. A. Lavin and S. Gray, "Fast
 * algorithms for convolutional neural networks", CVPR 2016 (arXiv 1509.09308); B, G and A are that
 * paper's.
 *
 * An output tile of 4x4 pixels is A' [ (G w G') * (B' d B) ] A of its 6x6 inputs d. With U = G w G'
 * and V = B' d B, the products at one of the 36 points are a matrix product over the channels:
 * M[point] = V[point] U[point], (tiles, C) times (C, K). The gradients are the adjoints:
 * dM = A dY A', dU = V' dM, dV = dM U', dX = sum over tiles of B dV B'.
 *
 * Tiles are processed in blocks, so that V and M stay in the caches. Images are float32 NHWC. With
 * `up`, the input is upsampled by 2 (nearest neighbour) while it is loaded; with `pool`, only the
 * largest of each 2x2 outputs is stored, with its index. An activation comes last.
 *
 * Of an upsampled input, V is zero wherever a row or a column of B' is that of the point -1, since
 * each pixel occurs twice, with opposite signs. 11 of the 36 products are skipped then.
 *
 * In the names below, `adjoint` is the backward counterpart of a function. The file is long since
 * all of it is to be inlined, which needs one translation unit.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(LANES) /* set on the command line */
#elif defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define BLOCK 24 /* tiles; a multiple of the rows of a product's inner kernel */
#define PANEL (2 * LANES)
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));

enum { NONE, LEAKY, ELU, TANH, SIGMOID };

typedef struct {
    int64_t images, height, width; /* of the convolution's output, before any pooling */
    int64_t in, out;               /* channels */
    int64_t up, pool;              /* flags */
    int64_t direct;                /* a flag: few input channels, see `direct_part` */
    int64_t activation;            /* one of the above */
    float below;                   /* 0: the slope of LEAKY, the limit of ELU with its sign turned */
} Shape;

static int64_t padded(int64_t channels) { return (channels + LANES - 1) / LANES * LANES; }

/* Distance of a block's 36 matrices, in floats: not a power of two, which would map all values of a
 * tile to the same few cache lines. */
static int64_t plane_of(int64_t wide) { return BLOCK * wide + 16; }

/* Lanes from `count` on may hold any value, since their results are never stored. They are read
 * with the others if that does not pass `end`. */
INLINE vec load(const float *from, int64_t count, const float *end) {
    if (count >= LANES || from + LANES <= end) return *(const vec *)from;
    vec whole = {0};
    for (int64_t i = 0; i < count; i++) whole[i] = from[i];
    return whole;
}

INLINE void store(float *to, vec value, int64_t count) {
    if (count >= LANES)
        *(vec *)to = value;
    else
        for (int64_t i = 0; i < count; i++) to[i] = value[i];
}

INLINE vec where(ints mask, vec yes, vec no) {
    return (vec)(((ints)yes & mask) | ((ints)no & ~mask));
}

INLINE ints load_bytes(const uint8_t *from, int64_t count) {
    bytes whole = {0};
    memcpy(&whole, from, count < LANES ? count : LANES);
    return __builtin_convertvector(whole, ints);
}

INLINE void store_bytes(uint8_t *to, ints values, int64_t count) {
    bytes whole = __builtin_convertvector(values, bytes);
    memcpy(to, &whole, count < LANES ? count : LANES);
}

/* ---- activations */

INLINE vec all(float value) { return (vec){0} + value; }

/* e^r - 1 with x = n ln 2 + r, so that e^x is 2^n e^r: the polynomial of Cephes' expf (S. L.
 * Moshier). x is from -87 to 88; NaN stays NaN. */
INLINE vec exp_reduced(vec x, vec *power) {
    const float whole = 12582912; /* 1.5 * 2^23: its last bit is worth 1 */
    vec shifted = x * 1.44269504f + whole, n = shifted - whole;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f, p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    *power = (vec)(((ints)shifted - (ints)all(whole) + 127) << 23); /* 2^n */
    return p * r * r + r;
}

/* Not inlined, since every vector of a tile calls it, which would bloat the code. */
static __attribute__((noinline)) vec curved_activation(const Shape *s, vec x) {
    vec size = (vec)((ints)x & 0x7fffffff), power, e;
    if (s->activation == TANH) { /* e / (e + 2) with e = e^2|x| - 1; from 10 on it is 1 */
        e = exp_reduced(2 * where(size > 10, all(10), size), &power);
        e = power * e + (power - 1);
        return (vec)((ints)(e / (e + 2)) | ((ints)x & ~0x7fffffff));
    }
    e = exp_reduced(where(size > 87, all(-87), -size), &power); /* e^-|x| does not overflow */
    if (s->activation == ELU) /* e^x - 1 that keeps its digits near 0 */
        return where(x > 0, x, s->below * (power * e + (power - 1)));
    e = power * e + power; /* SIGMOID */
    return where(x < 0, e, all(1)) / (e + 1);
}

INLINE vec activated(const Shape *s, vec x) {
    if (s->activation == NONE) return x;
    if (s->activation == LEAKY) return where(x > 0, x, s->below * x);
    return curved_activation(s, x);
}

/* The gradient of an activation's input, from its output y and the output's gradient dy. Far below
 * zero, where ELU's slope is under 1e-6, rounding of y loses most of it, as in torch in place. */
INLINE vec activated_adjoint(const Shape *s, vec y, vec dy) {
    switch (s->activation) {
    case LEAKY: return where(y > 0, dy, s->below * dy);
    case ELU: return where(y > 0, dy, (y + s->below) * dy);
    case TANH: return (1 - y * y) * dy;
    default: /* SIGMOID */ return (1 - y) * y * dy;
    }
}

/* ---- the transforms of one row or column
 *
 * Those of an upsampled input skip point 2, which is -1. */

INLINE int is_zero(const int up, int point) { return up && point == 2; }

INLINE void input_1d(const vec *d, vec *v) { /* v = B' d */
    vec a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);
    v[0] = 4 * (d[0] - d[2]) + (d[4] - d[2]);
    v[1] = a + b;
    v[2] = a - b;
    v[3] = c + e;
    v[4] = c - e;
    v[5] = 4 * d[1] - 5 * d[3] + d[5];
}

INLINE void input_adjoint_1d(const int up, const vec *v, vec *d) { /* d = B v */
    vec a = v[1], b = v[1], c = v[3] + v[4], e = 2 * (v[3] - v[4]);
    if (!up) a += v[2], b -= v[2];
    d[0] = 4 * v[0];
    d[1] = 4 * (v[5] - b) - e;
    d[2] = -5 * v[0] - 4 * a - c;
    d[3] = b + e - 5 * v[5];
    d[4] = v[0] + a + c;
    d[5] = v[5];
}

INLINE void output_1d(const int up, const vec *m, vec *y) { /* y = A' m */
    vec a = m[1], b = m[1], c = m[3] + m[4], e = m[3] - m[4];
    if (!up) a += m[2], b -= m[2];
    y[0] = m[0] + a + c;
    y[1] = b + 2 * e;
    y[2] = a + 4 * c;
    y[3] = b + 8 * e + m[5];
}

INLINE void output_adjoint_1d(const vec *y, vec *m) { /* m = A y */
    vec a = y[0] + y[2], b = y[1] + y[3], c = y[0] + 4 * y[2], e = 2 * y[1] + 8 * y[3];
    m[0] = y[0];
    m[1] = a + b;
    m[2] = a - b;
    m[3] = c + e;
    m[4] = c - e;
    m[5] = y[3];
}

/* ---- positions of tiles and their pixels */

typedef struct {
    int64_t image, row, column; /* of its first output pixel */
} Tile;

static Tile tile_at(const Shape *s, int64_t number) {
    int64_t across = (s->width + 3) / 4, down = (s->height + 3) / 4;
    int64_t place = number % (across * down);
    return (Tile){number / (across * down), place / across * 4, place % across * 4};
}

static int64_t tiles_an_image(const Shape *s) { return (s->width + 3) / 4 * ((s->height + 3) / 4); }

/* Offsets of a tile's input pixels, 6x6 or, before upsampling, 4x4; -1 outside the image. */
INLINE void input_offsets(const Shape *s, Tile tile, const int up, int64_t *at) {
    const int64_t scale = up ? 2 : 1, side = up ? 4 : 6;
    int64_t height = s->height / scale, width = s->width / scale;
    int64_t top = tile.row / scale - 1, left = tile.column / scale - 1;
    for (int64_t i = 0; i < side; i++)
        for (int64_t j = 0; j < side; j++) {
            int64_t r = top + i, c = left + j;
            int inside = r >= 0 && r < height && c >= 0 && c < width;
            at[i * side + j] = inside ? ((tile.image * height + r) * width + c) * s->in : -1;
        }
}

static const int REPEATED[6] = {0, 1, 1, 2, 2, 3}; /* rows of an upsampled window */

/* Computes V for some channels of one tile. */
INLINE void input_lanes(const int up, const int64_t *at, const float *x, const float *end,
                        int64_t count, float *v, int64_t plane) {
    const int side = up ? 4 : 6;
    vec rows[6][6];
    for (int i = 0; i < side; i++) {
        vec d[6];
        for (int j = 0; j < side; j++) {
            int64_t p = at[i * side + j];
            d[j] = p < 0 ? (vec){0} : load(x + p, count, end);
        }
        if (up) d[5] = d[3], d[4] = d[3] = d[2], d[2] = d[1];
        input_1d(d, rows[i]);
    }
    for (int j = 0; j < 6; j++) {
        vec d[6], t[6];
        if (is_zero(up, j)) continue;
        for (int i = 0; i < 6; i++) d[i] = rows[up ? REPEATED[i] : i][j];
        input_1d(d, t);
        for (int i = 0; i < 6; i++)
            if (!is_zero(up, i)) *(vec *)(v + (i * 6 + j) * plane) = t[i];
    }
}

/* Adds the gradients of some channels of one tile to dX. */
INLINE void input_lanes_adjoint(const int up, const int64_t *at, const float *v, int64_t plane,
                                int64_t count, float *dx) {
    const int side = up ? 4 : 6;
    vec rows[6][6];
    for (int j = 0; j < 6; j++) {
        vec t[6], d[6];
        if (is_zero(up, j)) continue;
        for (int i = 0; i < 6; i++)
            if (!is_zero(up, i)) t[i] = *(const vec *)(v + (i * 6 + j) * plane);
        input_adjoint_1d(up, t, d);
        if (up) d[1] += d[2], d[2] = d[3] + d[4], d[3] = d[5];
        for (int i = 0; i < side; i++) rows[i][j] = d[i];
    }
    for (int i = 0; i < side; i++) {
        vec d[6];
        input_adjoint_1d(up, rows[i], d);
        if (up) d[1] += d[2], d[2] = d[3] + d[4], d[3] = d[5];
        for (int j = 0; j < side; j++) {
            int64_t p = at[i * side + j];
            if (p >= 0) store(dx + p, load(dx + p, count, dx) + d[j], count);
        }
    }
}

/* Computes V of one tile, in its row of (36, BLOCK, padded in). */
INLINE void input_tile(const Shape *s, const int up, Tile tile, const float *x, float *v) {
    int64_t at[36], plane = plane_of(padded(s->in)), c = 0;
    const float *end = x + s->images * s->height * s->width * s->in / (up ? 4 : 1);
    input_offsets(s, tile, up, at);
    for (; c + LANES <= s->in; c += LANES) input_lanes(up, at, x + c, end, LANES, v + c, plane);
    if (c < s->in) input_lanes(up, at, x + c, end, s->in - c, v + c, plane);
}

/* Adds the gradients of one tile to dX. */
INLINE void input_tile_adjoint(const Shape *s, const int up, Tile tile, const float *v, float *dx) {
    int64_t at[36], plane = plane_of(padded(s->in)), c = 0;
    input_offsets(s, tile, up, at);
    for (; c + LANES <= s->in; c += LANES) input_lanes_adjoint(up, at, v + c, plane, LANES, dx + c);
    if (c < s->in) input_lanes_adjoint(up, at, v + c, plane, s->in - c, dx + c);
}

/* Offsets of a tile's stored outputs, 4x4 or, pooled, 2x2; -1 outside. */
INLINE void output_offsets(const Shape *s, Tile tile, const int pool, int64_t *at) {
    const int64_t step = pool ? 2 : 1, side = 4 / step;
    int64_t height = s->height / step, width = s->width / step;
    for (int64_t i = 0; i < side; i++)
        for (int64_t j = 0; j < side; j++) {
            int64_t r = tile.row / step + i, c = tile.column / step + j;
            int inside = r < height && c < width;
            at[i * side + j] = inside ? ((tile.image * height + r) * width + c) * s->out : -1;
        }
}

INLINE vec larger(vec so_far, vec next, int number, ints *which) {
    /* As in torch: the first of equal values, and NaN before any number. */
    ints take = (next > so_far) | (next != next);
    *which = (*which & ~take) | (number & take);
    return where(take, next, so_far);
}

INLINE void output_lanes(const Shape *s, const int up, const int pool, const int64_t *at,
                         const float *m, int64_t plane, const float *bias, int64_t count, float *y,
                         uint8_t *which) {
    const int side = pool ? 2 : 4, step = pool ? 2 : 1;
    vec columns[4][6], t[4][4], b = load(bias, count, bias);
    for (int j = 0; j < 6; j++) {
        vec d[6], c[4];
        if (is_zero(up, j)) continue;
        for (int i = 0; i < 6; i++)
            if (!is_zero(up, i)) d[i] = *(const vec *)(m + (i * 6 + j) * plane);
        output_1d(up, d, c);
        for (int i = 0; i < 4; i++) columns[i][j] = c[i];
    }
    for (int i = 0; i < 4; i++) output_1d(up, columns[i], t[i]);
    for (int i = 0; i < side; i++)
        for (int j = 0; j < side; j++) {
            int64_t p = at[i * side + j];
            if (p < 0) continue;
            vec value = t[i * step][j * step];
            if (pool) {
                ints index = {0};
                value = larger(value, t[2 * i][2 * j + 1], 1, &index);
                value = larger(value, t[2 * i + 1][2 * j], 2, &index);
                value = larger(value, t[2 * i + 1][2 * j + 1], 3, &index);
                store_bytes(which + p, index, count);
            }
            store(y + p, activated(s, value + b), count);
        }
}

/* Computes dM for some channels of one tile, and adds to the bias's gradient. */
INLINE void output_lanes_adjoint(const Shape *s, const int up, const int pool, const int64_t *at,
                                 const float *y, const float *dy, int64_t after,
                                 const uint8_t *which, int64_t count, float *m, int64_t plane,
                                 float *dbias) {
    const int side = pool ? 2 : 4;
    vec t[4][4], rows[4][6], sum = *(vec *)dbias;
    for (int i = 0; i < side; i++)
        for (int j = 0; j < side; j++) {
            int64_t p = at[i * side + j];
            vec value = {0};
            if (p >= 0) {
                value = load(dy + p, count, dy + after);
                if (s->activation != NONE)
                    value = activated_adjoint(s, load(y + p, count, y + after), value);
            }
            sum += value;
            if (pool) {
                ints index = p < 0 ? (ints){0} : load_bytes(which + p, count);
                for (int k = 0; k < 4; k++)
                    t[2 * i + k / 2][2 * j + k % 2] = where(index == k, value, (vec){0});
            } else {
                t[i][j] = value;
            }
        }
    *(vec *)dbias = sum;
    for (int i = 0; i < 4; i++) output_adjoint_1d(t[i], rows[i]);
    for (int j = 0; j < 6; j++) {
        vec d[4], out[6];
        if (is_zero(up, j)) continue;
        for (int i = 0; i < 4; i++) d[i] = rows[i][j];
        output_adjoint_1d(d, out);
        for (int i = 0; i < 6; i++)
            if (!is_zero(up, i)) *(vec *)(m + (i * 6 + j) * plane) = out[i];
    }
}

INLINE void output_tile(const Shape *s, const int up, const int pool, Tile tile, const float *m,
                       const float *bias, float *y, uint8_t *which) {
    int64_t at[16], plane = plane_of(padded(s->out)), k = 0;
    output_offsets(s, tile, pool, at);
    for (; k + LANES <= s->out; k += LANES)
        output_lanes(s, up, pool, at, m + k, plane, bias + k, LANES, y + k, which + k);
    if (k < s->out)
        output_lanes(s, up, pool, at, m + k, plane, bias + k, s->out - k, y + k, which + k);
}

INLINE void output_tile_adjoint(const Shape *s, const int up, const int pool, Tile tile,
                                const float *y,
                        const float *dy, const uint8_t *which, float *m, float *dbias) {
    int64_t at[16], plane = plane_of(padded(s->out)), step = pool ? 2 : 1;
    int64_t size = s->images * (s->height / step) * (s->width / step) * s->out, k = 0;
    output_offsets(s, tile, pool, at);
    for (; k + LANES <= s->out; k += LANES)
        output_lanes_adjoint(s, up, pool, at, y + k, dy + k, size - k, which + k, LANES, m + k,
                             plane, dbias + k);
    if (k < s->out)
        output_lanes_adjoint(s, up, pool, at, y + k, dy + k, size - k, which + k, s->out - k,
                             m + k, plane, dbias + k);
}

/* The functions above with `up` and `pool` as compile-time constants. */

#define BY_FLAGS(function, ...)                            \
    switch (2 * !!s->up + !!s->pool) {                     \
    case 0: function(s, 0, 0, tile, __VA_ARGS__); break;   \
    case 1: function(s, 0, 1, tile, __VA_ARGS__); break;   \
    case 2: function(s, 1, 0, tile, __VA_ARGS__); break;   \
    default: function(s, 1, 1, tile, __VA_ARGS__);         \
    }

static void input_tile_any(const Shape *s, Tile tile, const float *x, float *v) {
    s->up ? input_tile(s, 1, tile, x, v) : input_tile(s, 0, tile, x, v);
}

static void input_tile_adjoint_any(const Shape *s, Tile tile, const float *v, float *dx) {
    s->up ? input_tile_adjoint(s, 1, tile, v, dx) : input_tile_adjoint(s, 0, tile, v, dx);
}

static void output_tile_any(const Shape *s, Tile tile, const float *m, const float *bias, float *y,
                           uint8_t *which) {
    BY_FLAGS(output_tile, m, bias, y, which)
}

static void output_tile_adjoint_any(const Shape *s, Tile tile, const float *y, const float *dy,
                            const uint8_t *which, float *m, float *dbias) {
    BY_FLAGS(output_tile_adjoint, y, dy, which, m, dbias)
}

/* ---- c (rows, columns) = a b, or +=
 *
 * a's columns may be in several runs of equal length that are not adjacent in memory.
 * b is in panels of PANEL columns. Those of the weights are contiguous, so that a panel stays in
 * the first-level cache; those of a block's M are its columns. */

typedef struct {
    const float *a, *b;
    float *c;
    int64_t a_row, a_column, b_row, b_panel, c_row; /* floats from one to the next */
    int64_t depth;
    int add;
    int64_t runs, a_run;
} Product;

INLINE void inner_kernel(const int rows, const int vectors, const Product *p, int64_t row,
                         int64_t column) {
    vec sum[12][2];
    const float *a = p->a + row * p->a_row, *b = p->b + column / PANEL * p->b_panel;
    float *c = p->c + row * p->c_row + column;
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++)
            sum[i][j] = p->add ? *(vec *)(c + i * p->c_row + j * LANES) : (vec){0};
    for (int64_t run = 0; run < p->runs; run++) {
        const float *left = a + run * p->a_run;
        for (int64_t l = 0; l < p->depth; l++) {
            vec right[2];
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) right[j] = *(const vec *)(b + j * LANES);
#pragma GCC unroll 12
            for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
                for (int j = 0; j < vectors; j++) sum[i][j] += left[i * p->a_row] * right[j];
            left += p->a_column;
            b += p->b_row;
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) *(vec *)(c + i * p->c_row + j * LANES) = sum[i][j];
}

/* How many rows the inner kernel computes next: few rows at a time make the processor wait for
 * sums, so that a single remaining row is avoided where possible. */
INLINE int64_t next_rows(int64_t left) {
    if (left == 7 || left == 8) return 4;
    return left < 6 ? left : 6;
}

INLINE void multiply_rows(const int vectors, const Product *p, int64_t rows, int64_t column) {
    int64_t row = 0;
    if (vectors == 1)
        for (; row + 12 <= rows; row += 12) inner_kernel(12, vectors, p, row, column);
    while (row < rows) {
        int64_t take = next_rows(rows - row);
        switch (take) {
        case 6: inner_kernel(6, vectors, p, row, column); break;
        case 5: inner_kernel(5, vectors, p, row, column); break;
        case 4: inner_kernel(4, vectors, p, row, column); break;
        case 3: inner_kernel(3, vectors, p, row, column); break;
        case 2: inner_kernel(2, vectors, p, row, column); break;
        default: inner_kernel(1, vectors, p, row, column);
        }
        row += take;
    }
}

static void multiply(const Product *p, int64_t rows, int64_t columns) {
    int64_t column = 0;
    for (; column + PANEL <= columns; column += PANEL) multiply_rows(2, p, rows, column);
    if (column < columns) multiply_rows(1, p, rows, column);
}

/* ---- weights, and their gradient */

static int64_t panels(int64_t rows, int64_t columns) {
    return (columns + PANEL - 1) / PANEL * PANEL * rows;
}

INLINE void weights_1d(const vec *w, vec *u) { /* u = G w */
    vec a = (w[0] + w[2]) * (-1.f / 6), b = w[1] * (1.f / 6);
    vec c = (w[0] + 4 * w[2]) * (1.f / 24), e = w[1] * (1.f / 12);
    u[0] = w[0] * .25f;
    u[1] = a - b;
    u[2] = a + b;
    u[3] = c + e;
    u[4] = c - e;
    u[5] = w[2];
}

INLINE void weights_lanes(const float *w, int64_t tap, int64_t count, float *u, int64_t plane) {
    vec rows[3][6];
    for (int i = 0; i < 3; i++) {
        vec d[3];
        for (int j = 0; j < 3; j++) d[j] = load(w + (i * 3 + j) * tap, count, w);
        weights_1d(d, rows[i]);
    }
    for (int j = 0; j < 6; j++) {
        vec d[3], t[6];
        for (int i = 0; i < 3; i++) d[i] = rows[i][j];
        weights_1d(d, t);
        for (int i = 0; i < 6; i++) *(vec *)(u + (i * 6 + j) * plane) = t[i];
    }
}

int64_t winograd_weights_size(int64_t rows, int64_t columns) { return 36 * panels(rows, columns); }

/* w: (3, 3, rows, columns), with `tap` and `row` as strides in floats; u has
 * `winograd_weights_size` floats. */
void winograd_weights(int64_t rows, int64_t columns, const float *w, int64_t tap, int64_t row,
                      float *u) {
    int64_t plane = panels(rows, columns);
    for (int64_t c = 0; c < columns; c += LANES) {
        float *to = u + c / PANEL * PANEL * rows + c % PANEL;
        for (int64_t r = 0; r < rows; r++)
            weights_lanes(w + r * row + c, tap, columns - c, to + r * PANEL, plane);
    }
}

/* ---- the whole convolution, part by part
 *
 * A part is a range of the images with weight gradients of its own, so that results depend on the
 * number of parts only. `..._parts` processes the next part until none is left; any number of
 * threads may run it at once. */

typedef struct {
    Shape shape;
    int64_t parts, next, failed; /* `failed`: parts without scratch memory */
    const float *x;
    const float *u; /* `winograd_weights` of (in, out); `direct`: (9 in, padded out) */
    const float *bias;
    float *y;          /* pooled or not */
    uint8_t *which;    /* like y, or NULL */
    const float *dy;   /* like y, which is read too where there is an activation */
    const float *ut;   /* `winograd_weights` of (out, in), or NULL where dx is */
    float *dx;         /* like x, or NULL */
    float *du, *dbias; /* zeros: (parts, 36 or 9, in, padded out) and (parts, padded out) */
} Job;

int64_t winograd_lanes(void) { return LANES; }

/* Whether V is zero at one of the 36 points. */
static int is_zero_at(const Shape *s, int64_t point) {
    return is_zero(s->up != 0, point / 6) || is_zero(s->up != 0, point % 6);
}

static void forward_part(const Job *j, int64_t first, int64_t last, float *v) {
    const Shape *s = &j->shape;
    int64_t in = padded(s->in), out = padded(s->out), tiles = tiles_an_image(s);
    float *m = v + 36 * plane_of(in);
    for (int64_t start = first * tiles; start < last * tiles; start += BLOCK) {
        int64_t count = last * tiles - start < BLOCK ? last * tiles - start : BLOCK;
        for (int64_t t = 0; t < count; t++)
            input_tile_any(s, tile_at(s, start + t), j->x, v + t * in);
        for (int64_t p = 0; p < 36; p++) {
            if (is_zero_at(s, p)) continue;
            multiply(&(Product){v + p * plane_of(in), j->u + p * panels(s->in, s->out),
                                m + p * plane_of(out), in, 1, PANEL, PANEL * s->in, out, s->in, 0, 1, 0},
                     count, out);
        }
        for (int64_t t = 0; t < count; t++)
            output_tile_any(s, tile_at(s, start + t), m + t * out, j->bias, j->y, j->which);
    }
}

static void backward_part(const Job *j, int64_t first, int64_t last, float *v, float *du,
                          float *dbias) {
    const Shape *s = &j->shape;
    int64_t in = padded(s->in), out = padded(s->out), tiles = tiles_an_image(s);
    int64_t image = s->height * s->width * s->in / (s->up ? 4 : 1);
    float *m = v + 36 * plane_of(in);
    for (int64_t start = first * tiles; start < last * tiles; start += BLOCK) {
        int64_t count = last * tiles - start < BLOCK ? last * tiles - start : BLOCK;
        for (int64_t t = 0; t < count; t++) {
            input_tile_any(s, tile_at(s, start + t), j->x, v + t * in);
            output_tile_adjoint_any(s, tile_at(s, start + t), j->y, j->dy, j->which, m + t * out,
                                    dbias);
        }
        for (int64_t p = 0; p < 36; p++) {
            if (is_zero_at(s, p)) continue;
            multiply(&(Product){v + p * plane_of(in), m + p * plane_of(out), du + p * s->in * out,
                                1, in, out, PANEL, out, count, 1, 1, 0},
                     s->in, out);
        }
        if (!j->dx) continue;
        for (int64_t p = 0; p < 36; p++) {
            if (is_zero_at(s, p)) continue;
            multiply(&(Product){m + p * plane_of(out), j->ut + p * panels(s->out, s->in),
                                v + p * plane_of(in), out, 1, PANEL, PANEL * s->out, in, s->out, 0, 1, 0},
                     count, in);
        }
        for (int64_t t = 0; t < count; t++) {
            if ((start + t) % tiles == 0) /* an image's first tile */
                memset(j->dx + (start + t) / tiles * image, 0, image * sizeof(float));
            input_tile_adjoint_any(s, tile_at(s, start + t), v + t * in, j->dx);
        }
    }
}

/* ---- few input channels
 *
 * Here the transforms cost more than they save: these are convolved directly, two rows of outputs
 * at a time, from a padded copy of the image. There is no dX: such layers are the first. */

static int64_t padded_image(const Shape *s) { return (s->height + 2) * (s->width + 2) * s->in; }

/* Copies an image with a border of zeros. */
static void pad_image(const Shape *s, const float *x, float *framed) {
    int64_t row = s->width * s->in, wide = row + 2 * s->in;
    memset(framed, 0, padded_image(s) * sizeof(float));
    for (int64_t r = 0; r < s->height; r++)
        memcpy(framed + (r + 1) * wide + s->in, x + r * row, row * sizeof(float));
}

/* Stores one row of outputs; with pooling, from two rows of sums. */
static void store_row(const Shape *s, const float *sums, const float *bias, float *y,
                    uint8_t *which) {
    int64_t out = padded(s->out), row = s->width * out, step = s->pool ? 2 : 1;
    for (int64_t c = 0; c < s->width / step; c++)
        for (int64_t k = 0; k < s->out; k += LANES) {
            const float *from = sums + c * step * out + k;
            int64_t count = s->out - k;
            vec value = *(const vec *)from;
            if (s->pool) {
                ints index = {0};
                value = larger(value, *(const vec *)(from + out), 1, &index);
                value = larger(value, *(const vec *)(from + row), 2, &index);
                value = larger(value, *(const vec *)(from + row + out), 3, &index);
                store_bytes(which + c * s->out + k, index, count);
            }
            value += load(bias + k, count, bias);
            store(y + c * s->out + k, activated(s, value), count);
        }
}

/* Computes the gradients of those sums, and adds to the bias's gradient. */
static void row_adjoint(const Shape *s, const float *y, const float *dy, const uint8_t *which,
                     float *sums, float *dbias) {
    int64_t out = padded(s->out), row = s->width * out, step = s->pool ? 2 : 1;
    if (s->pool) memset(sums, 0, 2 * row * sizeof(float)); /* an odd last column has no gradient */
    for (int64_t c = 0; c < s->width / step; c++)
        for (int64_t k = 0; k < s->out; k += LANES) {
            float *to = sums + c * step * out + k;
            int64_t count = s->out - k, at = c * s->out + k;
            vec value = load(dy + at, count, dy);
            if (s->activation != NONE)
                value = activated_adjoint(s, load(y + at, count, y), value);
            *(vec *)(dbias + k) += value;
            *(vec *)to = value;
            if (s->pool) {
                ints index = load_bytes(which + at, count);
                *(vec *)to = where(index == 0, value, (vec){0});
                *(vec *)(to + out) = where(index == 1, value, (vec){0});
                *(vec *)(to + row) = where(index == 2, value, (vec){0});
                *(vec *)(to + row + out) = where(index == 3, value, (vec){0});
            }
        }
}

static void direct_part(const Job *j, int64_t first, int64_t last, float *framed, float *du,
                        float *dbias, int backward) {
    const Shape *s = &j->shape;
    int64_t out = padded(s->out), step = s->pool ? 2 : 1, wide = (s->width + 2) * s->in;
    int64_t row = s->width / step * s->out, rows = s->height / step;
    float *sums = framed + padded_image(s);
    for (int64_t image = first; image < last; image++) {
        pad_image(s, j->x + image * s->height * s->width * s->in, framed);
        for (int64_t r = 0; r < rows; r++) {
            int64_t at = (image * rows + r) * row;
            uint8_t *which = s->pool ? j->which + at : NULL;
            if (backward) row_adjoint(s, j->y + at, j->dy + at, which, sums, dbias);
            for (int64_t i = 0; i < step; i++) {
                const float *window = framed + (r * step + i) * wide;
                float *line = sums + i * s->width * out;
                if (!backward) {
                    multiply(&(Product){window, j->u, line, s->in, 1, out, PANEL, out, 3 * s->in,
                                        0, 3, wide},
                             s->width, out);
                    continue;
                }
                for (int64_t tap = 0; tap < 3; tap++)
                    multiply(&(Product){window + tap * wide, line, du + tap * 3 * s->in * out, 1,
                                        s->in, out, PANEL, out, s->width, 1, 1, 0},
                             3 * s->in, out);
            }
            if (!backward) store_row(s, sums, j->bias, j->y + at, which);
        }
    }
}

static void run_parts(Job *j, int backward) {
    const Shape *s = &j->shape;
    int64_t in = padded(s->in), out = padded(s->out), i;
    int64_t floats = s->direct ? padded_image(s) + 2 * s->width * out
                               : 36 * (plane_of(in) + plane_of(out));
    float *scratch = aligned_alloc(64, (floats * (int64_t)sizeof(float) + 63) / 64 * 64);
    while ((i = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < j->parts) {
        int64_t first = s->images * i / j->parts, last = s->images * (i + 1) / j->parts;
        float *du = backward ? j->du + i * (s->direct ? 9 : 36) * s->in * out : NULL;
        float *dbias = backward ? j->dbias + i * out : NULL;
        if (!scratch)
            __atomic_fetch_add(&j->failed, 1, __ATOMIC_RELAXED);
        else if (s->direct)
            direct_part(j, first, last, scratch, du, dbias, backward);
        else if (backward)
            backward_part(j, first, last, scratch, du, dbias);
        else
            forward_part(j, first, last, scratch);
    }
    free(scratch);
}

void winograd_forward_parts(void *job) { run_parts(job, 0); }

void winograd_backward_parts(void *job) { run_parts(job, 1); }
