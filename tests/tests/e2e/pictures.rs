//! Pictures of the web page: small PNG files.

use std::collections::HashMap;
use std::io::Cursor;

use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Filter};

type Colour = [u8; 3];

/// The most colours of a palette.
const MOST: usize = 256;

/// The same picture with a palette of its most frequent colours. Other colours become the nearest one: they are those of
/// smoothed edges of letters, so planes keep their exact colour.
pub(crate) fn with_palette(png: &[u8]) -> Vec<u8> {
    let mut reader = Decoder::new(Cursor::new(png)).read_info().expect("a PNG");
    let mut bytes = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut bytes).expect("a picture");
    assert_eq!(info.bit_depth, BitDepth::Eight);
    let samples = info.color_type.samples();
    assert!(samples >= 3, "a picture with colours");
    let pixels: Vec<Colour> = bytes.chunks_exact(samples).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    let mut counts: HashMap<Colour, usize> = HashMap::new();
    pixels.iter().for_each(|pixel| *counts.entry(*pixel).or_default() += 1);
    let mut palette: Vec<Colour> = counts.keys().copied().collect();
    palette.sort_by_key(|colour| (usize::MAX - counts[colour], *colour));
    palette.truncate(MOST);
    let places: HashMap<Colour, u8> = counts.keys().map(|colour| (*colour, nearest(&palette, *colour))).collect();
    let indexed: Vec<u8> = pixels.iter().map(|pixel| places[pixel]).collect();

    let mut made = Vec::new();
    let mut encoder = Encoder::new(&mut made, info.width, info.height);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_palette(palette.concat());
    encoder.set_compression(Compression::High);
    // Neighbours in a palette are not similar.
    encoder.set_filter(Filter::NoFilter);
    let mut writer = encoder.write_header().expect("memory takes it");
    writer.write_image_data(&indexed).expect("memory takes it");
    writer.finish().expect("memory takes it");
    made
}

/// The place of the nearest colour.
fn nearest(palette: &[Colour], colour: Colour) -> u8 {
    let distance = |other: &Colour| -> u32 {
        other.iter().zip(colour).map(|(one, other)| u32::from(one.abs_diff(other)).pow(2)).sum()
    };
    let place = (0..palette.len()).min_by_key(|place| distance(&palette[*place])).expect("a colour");
    u8::try_from(place).expect("at most 256 colours")
}
