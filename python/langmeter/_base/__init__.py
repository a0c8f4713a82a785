"""Ground floor: helpers that know neither LangChain nor any other room of langmeter."""
